"""A lake whose storage or engine fails in the middle: a clear error, nothing half recorded, no counter changed."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import boto3
import pytest
from botocore.config import Config
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from recon_pipeline.core.errors import ReconError
from recon_pipeline.lake import engines
from recon_pipeline_tests.lake.lakes import Event, write
from recon_pipeline_tests.lake.test_counting_a_lake import KEPT, count
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.support.assets import run_assets

NOTHING = "Nothing was counted. No counter was changed."


class Store:
    """S3 on loopback, behind a door that answers 503 to what it is told to refuse."""

    def __init__(self, behind: str) -> None:
        store = self
        self.refuses: Callable[[str, str], bool] = lambda _method, _path: False
        self.refused = 0

        class Door(BaseHTTPRequestHandler):
            def _pass(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if store.refuses(self.command, self.path):
                    store.refused += 1
                    said = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
                    self._answer(503, {"Content-Type": "application/xml"}, said)
                    return
                asked = Request(behind + self.path, body or None, dict(self.headers), method=self.command)  # noqa: S310 - of our own
                try:
                    with urlopen(asked) as answer:  # noqa: S310
                        self._answer(answer.status, dict(answer.headers), answer.read())
                except HTTPError as error:
                    self._answer(error.code, dict(error.headers), error.read())

            def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
                self.send_response(status)
                length = headers.get("Content-Length") if self.command == "HEAD" else str(len(content))
                for name, value in headers.items():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection", "server", "date"):
                        self.send_header(name, value)
                self.send_header("Content-Length", length or "0")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_HEAD = do_PUT = do_POST = _pass

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def store(lake: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A lake on S3 in which `a` used 10 in May."""
    behind = ThreadedMotoServer(port=0, verbose=False)
    behind.start()
    host, port = behind.get_host_and_port()
    opened = Store(f"http://{host}:{port}")
    for name, value in {
        "AWS_ENDPOINT_URL": opened.url, "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1", "RECON_LAKE": "s3://bucket/usage",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()  # of another test's server
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", config=Config(retries={"max_attempts": 0}))
    client.create_bucket(Bucket="bucket")
    folder = write(lake, [Event("req-1", 4, "a"), Event("req-2", 6, "a")], files=2)
    for file in folder.iterdir():
        client.upload_file(str(file), "bucket", f"usage/{file.name}")
    try:
        yield opened
    finally:
        opened.close()
        behind.stop()


def refused(billing: Billing) -> ReconError:
    """The error of a count that fails, after which a run finds everything as it was."""
    before = billing.value(KEPT), billing.counters()
    with pytest.raises(ReconError) as found:
        count()
    assert found.value.changed == NOTHING
    assert (billing.value(KEPT), billing.counters()) == before
    return found.value


def test_a_store_that_answers_503_to_the_listing_or_to_a_file_says_so_and_nothing_is_counted(
    job_billing: Billing, store: Store
) -> None:
    job_billing.add_counter("a", 3)
    store.refuses = lambda _method, _path: True
    listing = refused(job_billing)
    assert listing.what.startswith("s3://bucket/usage cannot be read")
    assert listing.fix.startswith("Check that the storage answers")

    store.refuses = lambda method, path: method == "GET" and "part-1.parquet" in path
    file = refused(job_billing)
    assert file.what.startswith("DuckDB 1.5.")
    assert " cannot read the lake: " in file.what
    assert store.refused > 1

    store.refuses = lambda _method, _path: False
    count()
    assert job_billing.counters() == {"a": 3}
    run_assets()
    assert job_billing.counters() == {"a": 10}


def test_an_engine_that_runs_out_of_memory_in_the_middle_leaves_what_was_counted_before(
    job_billing: Billing, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(lake, [Event("req-1", 4, "a")])
    count()
    run_assets()
    before = job_billing.query("select * from recon.lake_counter")
    write(lake / "more", [Event(f"req-{number}", 1, f"cus_{number}") for number in range(50_000)])
    engine = engines.duckdb_engine
    monkeypatch.setattr(engines, "duckdb_engine", lambda _memory_mb: engine(2))
    with pytest.raises(ReconError) as found:
        count()
    assert " needs more than its 2 MB of memory" in found.value.what
    assert found.value.changed == NOTHING
    assert job_billing.query("select * from recon.lake_counter") == before
    assert run_assets().record.outcome == "clean"
    assert job_billing.counters() == {"a": 4}
