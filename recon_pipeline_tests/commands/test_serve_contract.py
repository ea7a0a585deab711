"""OpenAPI document and real server hold each other to their word: schemathesis asks whatever it can think of."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline_tests.commands.conftest import prepared_template
from recon_pipeline_tests.support.postgres import PostgresServer
from recon_pipeline_tests.support.serving import CRON, Server, serving

pytestmark = pytest.mark.long

SECRET = "contract-hunter2secret"
EXAMPLES = 8
CHECKS = (
    "status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,"
    "negative_data_rejection,unsupported_method"
)


@pytest.fixture
def server(postgres_server: PostgresServer, dagster_environment: Mapping[str, str], tmp_path: Path) -> Iterator[Server]:
    this_month = BillingMonth.containing(datetime.now(UTC)).key  # so that a run is short
    url = postgres_server.create_database(prepared_template(postgres_server))
    with serving(
        tmp_path, **dagster_environment, DATABASE_URL=url, CRON_SECRET=SECRET, RECON_START_PERIOD=this_month
    ) as running:
        yield running


def test_every_request_gets_an_answer_that_the_document_describes(server: Server, tmp_path: Path) -> None:
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    assert program is not None
    document = server.get("/openapi.json").json
    assert set(document["paths"]) == {CRON, "/healthz", "/healthz/ready", "/healthz/reconciled", "/metrics"}
    output = subprocess.run(
        [
            program, "run", f"http://127.0.0.1:{server.port}/openapi.json", "--checks", CHECKS,
            "--header", f"Authorization: Bearer {SECRET}", "--max-examples", str(EXAMPLES), "--seed", "1",
            "--phases", "examples,coverage,fuzzing", "--request-timeout", "100", "--no-color",
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert output.returncode == 0, output.stdout + output.stderr
    statuses = set(re.findall(rf'"(?:GET|POST) {CRON}\S* HTTP/1.1" (\d+)', server.said()))
    assert {"202", "401", "409", "422"} <= statuses, "it has seen what does not depend on how long a run takes"
    assert "Traceback" not in server.said()
    assert SECRET not in server.said()
