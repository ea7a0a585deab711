"""The console script itself, as a process: what a shell, a cron job or a pipeline sees of it."""

import json
import os
import signal
import subprocess
import sysconfig
from datetime import UTC, datetime
from pathlib import Path

import pytest

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline_tests.commands.conftest import MakeBilling
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.reconciliation.traffic import PRODUCT, wait_until_blocked

RECON = Path(sysconfig.get_path("scripts")) / "recon"


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(RECON), *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env=os.environ | variables,
        timeout=120,
    )


def test_json_on_stdout_is_one_object_and_a_run_over_all_months_begins_with_the_start_period(billing: Billing) -> None:
    current = BillingMonth.containing(datetime.now(UTC))
    billing.add_event("a", 7, period=(current.start, current.end))
    before = BillingMonth.parse("2025-05")
    billing.add_event("b", 7, period=(before.start, before.end))

    output = run("reconcile", "--all", "--json", RECON_START_PERIOD=current.key)

    assert (output.returncode, output.stdout.count("\n")) == (0, 1), output.stderr
    assert json.loads(output.stdout)["partitions"] == [current.key]
    assert "Warning" not in output.stderr
    assert billing.counters(period=(current.start, current.end)) == {"a": 7}
    assert billing.counters(period=(before.start, before.end)) == {}


def test_a_blocked_run_exits_3_with_one_json_object_and_without_a_traceback(billing: Billing) -> None:
    billing.add_counter("a", 60)
    output = run("reconcile", "--period", "2025-05", "--json")
    assert output.returncode == 3, output.stderr
    assert json.loads(output.stdout)["blocked"] is True
    assert "Traceback" not in output.stdout + output.stderr


@pytest.mark.timeout(150)
def test_a_run_that_is_interrupted_says_so_and_its_record_does_too(billing: Billing) -> None:
    billing.add_event("a", 7)
    with billing.session() as migration:
        migration.query("lock table billing_usage_counters in access exclusive mode")
        process = subprocess.Popen(
            [str(RECON), "reconcile", "--period", "2025-05"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        wait_until_blocked(billing, PRODUCT, seconds=60)  # a process that starts beside others
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "was interrupted, by Ctrl-C or SIGTERM" in " ".join(output.split()), output
    assert "What to do: Start it again" in " ".join(output.split())
    assert "Traceback" not in output


@pytest.mark.parametrize("variables", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}])
def test_a_terminal_without_unicode_gets_the_error_and_no_traceback_with_a_password(
    make_billing: MakeBilling, variables: dict[str, str]
) -> None:
    url = "postgresql://app:hunter2secret@127.0.0.1:1/billing"
    output = run("init", DATABASE_URL=url, **variables)
    assert output.returncode == 1
    assert "could not be reached" in output.stderr
    assert "Traceback" not in output.stderr
    assert "hunter2secret" not in output.stdout + output.stderr
