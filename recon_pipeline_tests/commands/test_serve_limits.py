"""What a caller can take from `recon serve`, and what it leaves in its log: raw sockets to a real process."""

import base64
import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from fastapi import FastAPI, Response

from recon_pipeline.faces.serve import connections
from recon_pipeline.faces.serve.access import neighborhood, read_proxies
from recon_pipeline.faces.serve.connections import CONNECTIONS_PER_ADDRESS, HEAD_BYTES
from recon_pipeline.faces.serve.guard import WRONG_SECRETS_PER_MINUTE
from recon_pipeline_tests.commands.conftest import recon
from recon_pipeline_tests.support.serving import CRON, Reply, Server, serving, serving_here

CHANGING, READING = "changing-hunter2secret", "reading-hunter2secret"
NOBODY = "postgresql://app:hunter2secret@127.0.0.1:1/nothing"
PROXY = "127.0.0.9"
ALIVE = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that trusts a proxy at an address that nobody else has; its databases are away."""
    variables = {
        "DATABASE_URL": NOBODY,
        "CRON_SECRET": CHANGING,
        "RECON_READ_SECRET": READING,
        "FORWARDED_ALLOW_IPS": PROXY,
    }
    with serving(tmp_path_factory.mktemp("limits"), **variables) as running:
        yield running
        assert "hunter2" not in running.said()
        assert "Traceback" not in running.said()


def open_from(server: Server, address: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=60, source_address=(address, 0))


def ask(server: Server, head: bytes, *, address: str = "127.0.0.1") -> Reply:
    """The reply to what is sent as it stands."""
    with open_from(server, address) as connection:
        connection.sendall(head)
        return read(connection)


def read(connection: socket.socket, method: str = "GET") -> Reply:
    reply = http.client.HTTPResponse(connection, method=method)
    reply.begin()
    return Reply(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read().decode())


def head_of(size: int) -> bytes:
    """A whole head of so many bytes."""
    begin, end = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ", b"\r\n\r\n"
    return begin + b"x" * (size - len(begin) - len(end)) + end


@pytest.mark.parametrize(
    ("size", "status"), [(HEAD_BYTES - 1, 200), (HEAD_BYTES, 200), (HEAD_BYTES + 1, 431), (200_000, 431)]
)
def test_a_head_has_the_size_that_is_documented_however_it_arrives(server: Server, size: int, status: int) -> None:
    at_once = ask(server, head_of(size))
    with open_from(server, "127.0.0.1") as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, size, 5_000):
            connection.sendall(head_of(size)[start : start + 5_000])
        in_pieces = read(connection)
    assert (at_once.status, in_pieces.status) == (status, status)
    if status == 431:
        assert at_once.json == {"error": "Request header fields too large"}


def test_many_small_headers_are_as_large_as_one(server: Server) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * (HEAD_BYTES // 8) + b"\r\n"
    assert ask(server, head).status == 431


def test_head_is_get_without_the_body_on_every_path_but_the_one_that_starts_runs(server: Server) -> None:
    login = {"Authorization": f"Bearer {READING}"}
    for path in ("/healthz", "/healthz/ready", "/healthz/reconciled", "/metrics", "/openapi.json", "/", "/customers/a"):
        got, headed = server.call("GET", path, **login), server.call("HEAD", path, **login)
        assert (headed.status, headed.body) == (got.status, ""), path
        assert headed.headers["content-type"] == got.headers["content-type"]
        assert headed.headers["content-length"] == got.headers["content-length"] == str(len(got.body.encode()))
    assert server.call("HEAD", CRON, Authorization=f"Bearer {CHANGING}").status == 405


def test_one_address_cannot_take_all_connections(server: Server) -> None:
    with ExitStack() as opened:
        greedy = [opened.enter_context(open_from(server, "127.0.0.2")) for _ in range(CONNECTIONS_PER_ADDRESS)]
        for connection in greedy:
            connection.sendall(ALIVE[:20])
        with open_from(server, "127.0.0.2") as one_more:
            assert is_dropped(one_more)
        assert ask(server, ALIVE, address="127.0.0.3").status == 200, "others do not notice"
        greedy[0].sendall(ALIVE[20:])
        assert read(greedy[0]).status == 200
    assert "Dropped a connection of 127.0.0.2" in server.said()


def is_dropped(connection: socket.socket) -> bool:
    try:
        connection.sendall(ALIVE)
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_a_proxy_may_have_many_connections_since_it_speaks_for_many(server: Server) -> None:
    with ExitStack() as opened:
        for _ in range(CONNECTIONS_PER_ADDRESS + 1):
            opened.enter_context(open_from(server, PROXY))
        assert ask(server, ALIVE, address=PROXY).status == 200


def wrong(server: Server, address: str, *, forwarded: str) -> int:
    head = f"GET {CRON} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\nX-Forwarded-For: {forwarded}\r\n\r\n"
    return ask(server, head.encode(), address=address).status


def test_who_is_no_proxy_cannot_pass_for_another_address(server: Server) -> None:
    tries = [wrong(server, "127.0.0.4", forwarded=f"192.0.2.{n}") for n in range(2 * WRONG_SECRETS_PER_MINUTE)]
    assert 429 in tries, "each try claims another address"
    assert '192.0.2.7:0 - "GET' not in server.said()


def test_a_proxys_word_is_taken_and_only_for_what_it_saw_itself(server: Server) -> None:
    tries = [wrong(server, PROXY, forwarded=f"192.0.2.{n}, 198.51.100.1") for n in range(2 * WRONG_SECRETS_PER_MINUTE)]
    assert 429 in tries, "what a caller wrote before the proxy did is not believed"
    assert wrong(server, PROXY, forwarded="198.51.100.2") == 401
    assert '198.51.100.2:0 - "GET' in server.said()


def test_a_token_in_a_query_is_in_no_log(server: Server) -> None:
    for path in ("/metrics", "/", CRON, "/nothing"):
        server.get(f"{path}?token=leak-me&x=leak-me")
        server.get(f"{path}?leak-me")
    assert f'"GET {CRON} HTTP/1.1" 401' in server.said()
    assert "leak-me" not in server.said()


def test_a_caller_that_does_not_read_its_answer_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "ANSWER_SECONDS", 0.5)
    lost = threading.Event()

    class Watched(connections.bounded(read_proxies({}))):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost.set()

    app = FastAPI()
    app.add_api_route("/", lambda: Response(bytes(50_000_000)))  # more than the kernel's buffers hold
    with serving_here(app, http=Watched) as server, server.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert lost.wait(60)


def login(secret: str, user: str = "me") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()}


@pytest.mark.parametrize("path", ["/", "/customers/a", "/customers?id=a"])
def test_pages_open_to_both_secrets_and_to_nobody_else(server: Server, path: str) -> None:
    for secret in (READING, CHANGING):
        for headers in (login(secret), login(secret, ""), {"Authorization": f"Bearer {secret}"}):
            assert server.call("GET", path, **headers).status == 503, "the database is away"
    for headers in ({}, login(""), login("reading"), {"Authorization": "Basic !"}, {"Authorization": READING}):
        reply = server.call("GET", path, **headers)
        if reply.status != 429:
            assert (reply.status, reply.headers["www-authenticate"]) == (
                401,
                'Basic realm="recon_pipeline", charset="UTF-8"',
            )
        assert "/nothing" not in reply.body


def test_the_secret_that_reads_starts_nothing_and_no_login_does(server: Server) -> None:
    for headers in ({"Authorization": f"Bearer {READING}"}, login(READING), login(CHANGING)):
        for method in ("GET", "POST"):
            assert server.call(method, CRON, **headers).status in (401, 429)
    assert server.cron(CHANGING).status == 503, "the database is away"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"RECON_READ_SECRET": "hunter2 x"}, "RECON_READ_SECRET holds a space"),
        ({"RECON_READ_SECRET": "hunter2", "CRON_SECRET": "hunter2"}, "is the same as CRON_SECRET"),
        (
            {"RECON_READ_SECRET": "hunter2", "CRON_SECRET": "new", "CRON_SECRET_PREVIOUS": "hunter2"},
            "who may read could start runs",
        ),
        ({"FORWARDED_ALLOW_IPS": "*"}, "FORWARDED_ALLOW_IPS is '*'"),
        ({"FORWARDED_ALLOW_IPS": "10.0.0.1,0.0.0.0/0"}, "whoever it names can take any address"),
        ({"FORWARDED_ALLOW_IPS": "10.0.0.0/33"}, "not a list of the addresses or networks of proxies"),
        ({"FORWARDED_ALLOW_IPS": "proxy.example.com"}, "FORWARDED_ALLOW_IPS is 'proxy.example.com'"),
    ],
)
def test_a_setting_that_would_open_more_than_it_says_is_refused_at_start(variables: dict[str, str], said: str) -> None:
    output = recon("serve", DATABASE_URL=NOBODY, **variables)
    assert output.exit_code == 2
    assert said in output.said
    assert "hunter2" not in output.said


def test_proxies_are_those_on_this_machine_unless_others_are_named() -> None:
    assert "127.0.0.1" in read_proxies({})
    assert "::1" in read_proxies({"FORWARDED_ALLOW_IPS": ""})
    assert "127.0.0.1" not in read_proxies({"FORWARDED_ALLOW_IPS": "10.1.0.0/16, fd00::/64"})
    assert "10.1.9.9" in read_proxies({"FORWARDED_ALLOW_IPS": "10.1.0.0/16, fd00::/64"})
    assert "unknown" not in read_proxies({})


def test_all_addresses_of_one_customer_of_a_provider_count_as_one() -> None:
    assert neighborhood("2001:db8::1") == neighborhood("2001:db8::ffff:1") != neighborhood("2001:db8:0:1::1")
    assert neighborhood("192.0.2.1") != neighborhood("192.0.2.2")
    assert neighborhood("unknown") == "unknown"
