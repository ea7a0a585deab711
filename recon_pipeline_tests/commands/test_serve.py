"""The cron endpoint, as real processes serve it to real callers."""

import http.client
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

from recon_pipeline.automation.installation import LANE_TAG
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.serve.access import Secrets
from recon_pipeline.faces.serve.answers import Answer
from recon_pipeline.faces.serve.app import BODY_BYTES, create_app
from recon_pipeline.faces.serve.connections import HEAD_BYTES, HEAD_SECONDS
from recon_pipeline.faces.serve.guard import WRONG_SECRETS_PER_MINUTE, Guard
from recon_pipeline.faces.serve.runner import LANE, Runner
from recon_pipeline.settings import read_settings
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.commands.conftest import prepared_template, recon
from recon_pipeline_tests.reconciliation.billing import Billing, Period, connected
from recon_pipeline_tests.support.postgres import PostgresServer
from recon_pipeline_tests.support.serving import CRON, Caller, Reply, Server, serving, serving_here

pytestmark = pytest.mark.long

NEW, OLD = "new-hunter2secret", "old-hunter2secret"
NOBODY = "postgresql://app:hunter2secret@127.0.0.1:1/nothing"
_MONTH = BillingMonth.containing(datetime.now(UTC))
NOW: Period = (_MONTH.start, _MONTH.end)
ANSWER = {
    "success", "timestamp", "gatewayName", "usageType", "eventsScanned", "countersScanned", "rowsRepaired",
    "driftCount", "dedupeCount", "overQuotaTransitions", "durationMs", "runId", "runIds", "reconcileFailures",
    "blocked", "paused",
}  # fmt: skip


@dataclass(frozen=True)
class Serving:
    """Two processes on one database: the secret is being changed on the first, and has been on the second."""

    first: Server
    second: Server
    url: str
    slow: socket.socket


@pytest.fixture(scope="module")
def serve(
    postgres_server: PostgresServer,
    dagster_environment: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Serving]:
    url = postgres_server.create_database(prepared_template(postgres_server))
    folder = tmp_path_factory.mktemp("serve")
    variables = {**dagster_environment, "DATABASE_URL": url, "RECON_START_PERIOD": _MONTH.key, "CRON_SECRET": NEW}
    with ExitStack() as stack:
        first = stack.enter_context(serving(folder, **variables, CRON_SECRET_PREVIOUS=OLD))
        slow = stack.enter_context(first.connect())
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        second = stack.enter_context(serving(folder, **variables))
        yield Serving(first, second, url, slow)
        for server in (first, second):
            assert "hunter2" not in server.said()
            assert "Traceback" not in server.said()


@pytest.fixture
def own(serve: Serving) -> Iterator[Billing]:
    """The application's side of their database, empty."""
    with connected(serve.url, autocommit=True) as connection:
        connection.execute("truncate billing_usage_events, billing_usage_counters")
        yield Billing(serve.url, connection)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_it_repairs_and_answers_with_the_names_of_the_endpoint_it_replaces(
    serve: Serving, own: Billing, run_history: DagsterInstance, method: str
) -> None:
    own.record("a", 3, period=NOW)
    own.add_event("b", 60, period=NOW)
    reply = serve.first.cron(NEW, method=method)
    assert reply.status == 200, serve.first.said()
    output = reply.json
    assert set(output) == ANSWER == set(Answer.model_validate(output).model_dump()), "as the document says"
    assert (output["success"], output["blocked"], output["paused"]) == (True, False, False)
    assert (output["gatewayName"], output["usageType"]) == ("stripe", "remote_commands")
    assert (output["driftCount"], output["rowsRepaired"], output["overQuotaTransitions"]) == (1, 1, 1)
    assert (output["dedupeCount"], output["reconcileFailures"]) == (0, 0)
    assert datetime.now(UTC) - datetime.fromisoformat(output["timestamp"]) < timedelta(minutes=2)
    assert output["timestamp"].endswith("Z")
    assert own.counters(period=NOW) == {"a": 3, "b": 60}
    run = run_history.get_run_by_id(output["runId"])
    assert run is not None
    assert run.status is DagsterRunStatus.SUCCESS
    assert run.tags[LANE_TAG] == LANE


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", f"Basic {NEW}", NEW, f"Bearer {NEW}x", "Bearer ä€"])
def test_who_has_no_secret_gets_401_and_starts_nothing(serve: Serving, own: Billing, header: str | None) -> None:
    own.add_event("b", 60, period=NOW)
    headers = {} if header is None else {"Authorization": header.encode().decode("latin-1")}
    reply = serve.second.call("GET", CRON, **headers)
    assert (reply.status, reply.json) == (401, {"error": "Unauthorized"})
    assert own.counters(period=NOW) == {}


def test_while_a_secret_is_changed_both_open_and_afterwards_the_new_one_alone(serve: Serving, own: Billing) -> None:
    assert [serve.first.cron(token, "?wait=nonsense").status for token in (OLD, NEW)] == [422, 422]
    assert [serve.second.cron(token, "?wait=nonsense").status for token in (OLD, NEW)] == [401, 422]


def test_one_run_at_a_time_over_all_processes_and_other_callers_learn_when_to_try_again(
    serve: Serving, own: Billing, run_history: DagsterInstance
) -> None:
    own.record("a", 3, period=NOW)
    own.set_counter("a", 1)
    with own.session() as other:
        other.query("select * from billing_usage_counters for update")  # the repair waits for it, and puts it off
        begun = serve.first.cron(NEW, "?wait=false", method="POST")
        busy = [server.cron(NEW) for server in (serve.second, serve.first)]
    assert begun.status == 202
    assert set(begun.json) == {"success", "timestamp", "runId", "runIds"}
    for reply in busy:
        assert (reply.status, reply.json) == (409, {"error": "A run is in progress"})
        assert int(reply.headers["retry-after"]) > 0
    assert _ended(run_history, begun.json["runId"]) is DagsterRunStatus.SUCCESS
    again = _until_not_busy(serve.second)
    assert (again.status, again.json["success"]) == (200, True)
    assert own.counters(period=NOW) == {"a": 3}


def test_blocked_and_paused_are_distinguished_and_nothing_is_written(serve: Serving, own: Billing) -> None:
    own.query(
        "insert into billing_usage_events (gateway_name, gateway_customer_id, usage_type, request_id, period_start, "
        "period_end) select 'stripe', 'cus_' || n, 'remote_commands', n::text, %s, %s from generate_series(1, 60) as n",
        *NOW,
    )
    blocked = _until_not_busy(serve.first)
    assert (blocked.status, blocked.json["success"]) == (200, False)
    assert (blocked.json["blocked"], blocked.json["paused"], blocked.json["driftCount"]) == (True, False, 60)

    own.query("delete from billing_usage_events where request_id <> '1'")
    own.query("insert into recon.control (action, reason, acted_by) values ('pause', 'INC-3', 'me')")
    try:
        paused = serve.second.cron(NEW)
    finally:
        own.query("insert into recon.control (action, acted_by) values ('resume', 'me')")
    assert (paused.status, paused.json["success"]) == (200, False)
    assert (paused.json["blocked"], paused.json["paused"], paused.json["driftCount"]) == (False, True, 1)
    assert own.counters(period=NOW) == {}
    assert serve.first.cron(NEW).json["rowsRepaired"] == 1


def test_health_distinguishes_a_live_process_a_ready_one_and_counters_that_are_reconciled(
    serve: Serving, own: Billing
) -> None:
    assert _until_not_busy(serve.first).status == 200
    for path in ("/healthz", "/healthz/ready", "/healthz/reconciled"):
        reply = serve.first.get(path)
        assert (reply.status, reply.json) == (200, {"status": "ok", "failing": []})
    own.query("update recon.reconciliation_run set finished_at = finished_at - interval '16 minutes'")
    overdue = serve.first.get("/healthz/reconciled")
    assert (overdue.status, overdue.json["failing"]) == (503, ["no run has succeeded for 15 minutes"])
    own.query("update recon.reconciliation_run set outcome = 'blocked'")
    assert serve.first.get("/healthz/reconciled").json["failing"] == ["no run has succeeded yet"]
    assert serve.first.get("/healthz/ready").status == 200
    own.query("alter table recon.schema_version rename to elsewhere")
    unready = serve.first.get("/healthz/ready")
    own.query("alter table recon.elsewhere rename to schema_version")
    assert (unready.status, unready.json["failing"]) == (
        503,
        ["schema recon was prepared by an older release, or none: recon init"],
    )


def test_a_live_process_says_so_while_everything_else_waits_for_the_database(serve: Serving, own: Billing) -> None:
    with own.session() as other, ThreadPoolExecutor(60) as callers:
        other.query("lock table recon.control in access exclusive mode")
        waiting = [callers.submit(serve.second.get, path) for path in ["/metrics", "/healthz/reconciled"] * 30]
        alive = [serve.second.get("/healthz").status for _ in range(3)]
        others = {future.result().status for future in waiting}
    assert alive == [200, 200, 200]
    assert others == {503}, "a run that cannot get the lock is refused"


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (CRON.encode(), BODY_BYTES + 1), 413),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * HEAD_BYTES, 431),
        (b"GET /" + b"x" * HEAD_BYTES, 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"DELETE %s HTTP/1.1\r\nHost: x\r\n\r\n" % CRON.encode(), 405),
        (b"GET %s/ HTTP/1.1\r\nHost: elsewhere\r\n\r\n" % CRON.encode(), 404),
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    ],
)
def test_what_is_too_large_or_makes_no_sense_is_refused_and_the_connection_closed(
    serve: Serving, request_head: bytes, status: int
) -> None:
    with serve.second.connect() as connection:
        connection.sendall(request_head)
        reply = http.client.HTTPResponse(connection)
        reply.begin()
        assert reply.status == status
        assert "hunter2" not in reply.read().decode()
        assert connection.recv(1) == b"", "closed"


def test_a_body_without_an_end_is_not_waited_for(serve: Serving) -> None:
    with serve.second.connect() as connection:
        connection.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % CRON.encode())
        reply = http.client.HTTPResponse(connection)
        reply.begin()
        assert reply.status == 401


def test_an_attack_of_bad_tokens_is_slowed_down_and_does_not_keep_out_who_has_the_secret(
    serve: Serving, own: Billing
) -> None:
    statuses = [serve.first.cron(f"guess-{number}").status for number in range(2 * WRONG_SECRETS_PER_MINUTE)]
    assert statuses.index(429) <= WRONG_SECRETS_PER_MINUTE
    assert 429 in statuses[-WRONG_SECRETS_PER_MINUTE:]
    refused = serve.first.cron("guess")
    if refused.status == 429:  # a minute may have ended
        assert (refused.json, refused.headers["retry-after"]) == ({"error": "Too many requests"}, "60")
    assert _until_not_busy(serve.first).status == 200


def test_a_client_that_does_not_get_to_the_point_is_dropped(serve: Serving) -> None:
    serve.slow.settimeout(HEAD_SECONDS + 30)
    assert serve.slow.recv(1) == b"", "closed without an answer"


def test_a_server_killed_in_the_middle_blocks_no_caller_and_its_run_is_reported_as_failed(
    serve: Serving, own: Billing, run_history: DagsterInstance, dagster_environment: Mapping[str, str], tmp_path: Path
) -> None:
    own.record("a", 3, period=NOW)
    own.set_counter("a", 1)
    variables = {**dagster_environment, "DATABASE_URL": serve.url, "RECON_START_PERIOD": _MONTH.key, "CRON_SECRET": NEW}
    with serving(tmp_path, **variables) as doomed, own.session() as other:
        other.query("select * from billing_usage_counters for update")
        begun = _until_not_busy(doomed, "?wait=false")
        _until(lambda: own.query("select 1 from recon.reconciliation_run where run_id = %s", begun.json["runId"]))
        doomed.process.kill()
        doomed.process.wait(30)
    dead = begun.json["runId"]
    again = _until_not_busy(serve.second)
    assert (again.status, again.json["success"]) == (200, True)
    assert own.counters(period=NOW) == {"a": 3}
    assert _ended(run_history, dead) is DagsterRunStatus.FAILURE
    assert run_history.get_runs(RunsFilter(tags={LANE_TAG: LANE}, statuses=[DagsterRunStatus.STARTED])) == []


def test_a_stop_waits_for_the_run_at_work_and_ends_well(
    serve: Serving, own: Billing, run_history: DagsterInstance, dagster_environment: Mapping[str, str], tmp_path: Path
) -> None:
    variables = {**dagster_environment, "DATABASE_URL": serve.url, "RECON_START_PERIOD": _MONTH.key, "CRON_SECRET": NEW}
    own.add_event("b", 60, period=NOW)
    with serving(tmp_path, **variables) as stopped:
        begun = _until_not_busy(stopped, "?wait=false")
        stopped.process.send_signal(signal.SIGTERM)
        assert stopped.process.wait(60) == 0
    assert _ended(run_history, begun.json["runId"]) is DagsterRunStatus.SUCCESS
    assert own.counters(period=NOW) == {"b": 60}


def test_without_its_databases_it_lives_and_answers_503_without_detail(
    dagster_environment: Mapping[str, str], tmp_path: Path
) -> None:
    variables = {**dagster_environment, "DATABASE_URL": NOBODY, "CRON_SECRET": NEW}
    with serving(tmp_path, **variables) as server:
        reply = server.cron(NEW)
        assert (reply.status, reply.json) == (503, {"error": "Service unavailable"})
        assert int(reply.headers["retry-after"]) > 0
        assert server.get("/metrics").status == 503
        assert server.get("/healthz").status == 200
        assert server.get("/healthz/ready").json["failing"] == ["the billing database cannot be used"]
        assert server.get("/healthz/reconciled").status == 503
        assert "hunter2" not in server.said()


def test_dagsters_storage_out_of_reach_is_503_before_anything_is_changed(
    serve: Serving, own: Billing, tmp_path: Path, dagster_environment: Mapping[str, str]
) -> None:
    own.add_event("b", 60, period=NOW)
    variables = {**dagster_environment, "DATABASE_URL": serve.url, "DAGSTER_PG_URL": NOBODY, "CRON_SECRET": NEW}
    with serving(tmp_path, **variables) as server:
        reply = server.cron(NEW)
        assert (reply.status, reply.json) == (503, {"error": "Service unavailable"})
        assert server.get("/healthz/ready").json["failing"] == ["Dagster's storage cannot be used"]
    assert own.counters(period=NOW) == {}


def test_without_a_secret_every_request_gets_a_configuration_error(billing: Billing) -> None:
    runner = Runner(read_settings(), BillingDatabase(billing.url))
    app = create_app(runner, Guard(Secrets()), (), version="1")
    with serving_here(app) as server:
        for token in (None, "", NEW):
            reply = server.cron(token)
            assert (reply.status, reply.json) == (500, {"error": "Configuration error"})


def test_an_internal_failure_is_reported_without_details(billing: Billing, caplog: pytest.LogCaptureFixture) -> None:
    billing.query("drop table billing_usage_events cascade")
    runner = Runner(read_settings(), BillingDatabase(billing.url))
    with serving_here(create_app(runner, Guard(Secrets((NEW,))), (), version="1")) as server:
        reply = server.cron(NEW)
    assert (reply.status, reply.json) == (500, {"error": "Internal server error"})
    assert "billing_usage_events" in caplog.text


def test_serve_says_at_start_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", NOBODY)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        output = recon("serve", "--port", port)
        assert output.exit_code == 2
        assert "CRON_SECRET is not set: the cron endpoint answers 500 to all callers" in output.said
        assert f"Cannot listen on 127.0.0.1 port {port}" in output.said
        assert "listens on" not in output.said
        for secrets in ({"CRON_SECRET": f"{NEW}\n"}, {"CRON_SECRET": "hunter2 x"}, {"CRON_SECRET_PREVIOUS": OLD}):
            output = recon("serve", "--port", port, **secrets)
            assert output.exit_code == 2
            assert next(iter(secrets)) in output.said
            assert "hunter2" not in output.said


def _ended(instance: DagsterInstance, run_id: str) -> DagsterRunStatus:
    """How a run ended, within a bound."""
    _until(lambda: (run := instance.get_run_by_id(run_id)) is not None and run.is_finished)
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def _until(happened: Callable[[], object]) -> None:
    """Wait for something, within a bound."""
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _until_not_busy(server: Caller, query: str = "") -> Reply:
    """The first reply that is not 409, within a bound."""
    deadline = time.monotonic() + 60
    while (reply := server.cron(NEW, query)).status == 409:
        assert time.monotonic() < deadline
    return reply
