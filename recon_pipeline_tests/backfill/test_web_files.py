"""Files of a web server that refuses, errs, redirects for ever or stops midway: the error says which and why."""

import gzip
import io
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import aiohttp
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.http import HTTPFileSystem

from recon_pipeline.core.errors import ReconError
from recon_pipeline.sources.rows import read_files

TEXT = b"customer,request\n" + b"".join(b"c,r%d\n" % number for number in range(20_000))


def parquet() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"request": list(range(20_000))}), file)
    return file.getvalue()


BODIES = {"csv": TEXT, "gz": gzip.compress(TEXT), "parquet": parquet()}


class Answers(BaseHTTPRequestHandler):
    """Answers as the path says: `/403`, `/loop`, `/whole/gz`, `/chunked/csv`, `/short/csv`, `/broken/csv`.

    `/slow/csv` sends with pauses, `/modest/csv` names a shorter length before it sends, `/other/csv` gives each range
    of the file from another version, `/touched/csv` is another version at each request.
    """

    protocol_version = "HTTP/1.1"
    versions = 0

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        how, _, kind = self.path.partition("?")[0].strip("/").partition("/")
        if how == "loop" or how.isdigit():
            self.send_response(302 if how == "loop" else int(how))
            self.send_header("Location", "/loop")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body, is_chunked = BODIES[kind], how in ("chunked", "broken", "slow")
        if how == "other" and self.headers["Range"] and self.command == "GET":
            Answers.versions += 1
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            of_now = body.replace(b"c,r", b"%d,r" % (Answers.versions % 10))[int(first) : int(last) + 1]
            self.send_response(206)
            self.send_header("Content-Length", str(len(of_now)))
            self.end_headers()
            self.wfile.write(of_now)
            return
        length = len(body) // 2 + 1 if how == "modest" and self.command == "HEAD" else len(body)
        self.send_response(200)
        if how == "touched":
            Answers.versions += 1
            self.send_header("Last-Modified", f"Sat, 17 May 2025 12:00:{Answers.versions:02} GMT")
        self.send_header("Accept-Ranges", "bytes" if how in ("modest", "other") else "none")
        self.send_header(*(("Transfer-Encoding", "chunked") if is_chunked else ("Content-Length", str(length))))
        self.end_headers()
        self.close_connection = True
        if self.command == "HEAD":
            return
        if how == "slow":
            for at in range(0, len(body), 2**16):
                part = body[at : at + 2**16]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                time.sleep(0.1)
            self.wfile.write(b"0\r\n\r\n")
            return
        sent = body[: len(body) // 2] if how in ("short", "broken") else body
        if is_chunked:
            sent = b"%x\r\n%s\r\n" % (len(sent), sent) + (b"0\r\n\r\n" if how == "chunked" else b"")
        self.wfile.write(sent)


class Quiet(ThreadingHTTPServer):
    """A client that hangs up is no news."""

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    server = Quiet(("127.0.0.1", 0), Answers)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("how", ["whole", "chunked"])
def test_a_file_of_the_web_is_read_with_and_without_its_length(web: str, how: str, kind: str) -> None:
    pieces = read_files([f"{web}/{how}/{kind}"], encoding="utf-8", delimiter=None)
    assert sum(len(piece.rows) for piece in pieces) == 20_000


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("403", "403"),
        ("500", "500"),
        ("404", "does not exist"),
        ("loop", "TooManyRedirects"),
        ("short/csv", "not completed"),
        ("broken/csv", "not completed"),
    ],
)
def test_what_a_web_server_does_wrong_is_an_error_that_names_file_and_cause_and_no_secret(
    web: str, path: str, cause: str
) -> None:
    with pytest.raises(ReconError, match=cause) as failed:
        list(read_files([f"{web}/{path}?signature=secret"], encoding="utf-8", delimiter=None))
    assert f"{web}/{path}" in failed.value.what
    assert "secret" not in str(failed.value)


@pytest.mark.parametrize("how", ["modest", "other"])
def test_a_file_of_the_web_is_one_answer_whatever_the_server_says_of_its_length_and_its_ranges(
    web: str, how: str
) -> None:
    pieces = read_files([f"{web}/{how}/csv"], encoding="utf-8", delimiter=None)
    rows = [row for piece in pieces for row in piece.rows]
    assert len(rows) == 20_000
    assert {row["customer"] for row in rows if isinstance(row, dict)} == {"c"}


def test_a_file_whose_rows_take_longer_than_a_web_client_waits_is_read_to_its_end(
    web: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    HTTPFileSystem.clear_instance_cache()  # a client that is there keeps its limits
    monkeypatch.setattr(aiohttp.client, "DEFAULT_TIMEOUT", aiohttp.ClientTimeout(total=0.2))
    pieces = read_files([f"{web}/slow/csv"], encoding="utf-8", delimiter=None)
    assert sum(len(piece.rows) for piece in pieces) == 20_000


def test_a_file_that_a_web_server_replaced_is_recognised_also_by_its_time_alone(web: str) -> None:
    with pytest.raises(ReconError, match="touched/csv changed while it was read"):
        list(read_files([f"{web}/touched/csv"], encoding="utf-8", delimiter=None))
