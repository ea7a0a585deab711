"""`recon demo` on an embedded server of the test's own: its story is true, repeatable, and touches nothing else."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recon_pipeline import embedded_postgres
from recon_pipeline.core.parity.classes import DifferenceClass
from recon_pipeline.embedded_postgres import BILLING_DATABASE, ensure_running
from recon_pipeline_tests.commands.conftest import recon
from recon_pipeline_tests.reconciliation.billing import Billing, connected
from recon_pipeline_tests.support.dagster import DAGSTER_YAML
from recon_pipeline_tests.support.postgres import throwaway_folder

pytestmark = pytest.mark.long

SMALL = ("demo", "--events", "2000", "--customers", "150", "--seed", "11")
SHOWN = "The demo does not touch DATABASE_URL; it uses the embedded Postgres."
MISMATCHES = """
    select count(*)
    from billing_usage_counters as counter
    full join (
        select gateway_customer_id, period_start, period_end, sum(quantity) as usage_count
        from billing_usage_events
        group by 1, 2, 3
    ) as log using (gateway_customer_id, period_start, period_end)
    where coalesce(counter.usage_count, 0) <> coalesce(log.usage_count, 0)
"""


@pytest.fixture
def data_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the embedded server, away from the developer's; settings that the demo must not follow."""
    with throwaway_folder() as folder:
        home = folder / "home"
        home.mkdir()
        shutil.copy(DAGSTER_YAML, home)
        monkeypatch.setenv("DAGSTER_HOME", str(home))
        monkeypatch.setenv("DAGSTER_PG_URL", "postgresql://nobody@127.0.0.1:1/dagster")
        monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/billing")
        monkeypatch.setenv("RECON_SCOPE", "stripe:something_else")
        monkeypatch.setenv("RECON_MAX_REPAIRS", "0")
        monkeypatch.setattr(embedded_postgres, "default_data_folder", lambda: folder / "data")
        yield folder / "data"


def test_the_demo_shows_true_figures_and_the_same_seed_shows_them_again(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context():
        first = recon(*SMALL, "--json")
    assert first.exit_code == 0, first.said
    assert SHOWN in first.err
    facts = first.json
    assert set(facts) == {
        "success",
        "events",
        "counters",
        "mishaps",
        "first_run",
        "repaired",
        "after",
        "closed",
        "parity",
    }
    assert not (data_folder / "postmaster.pid").exists(), "the server was left running"

    server = ensure_running(folder=data_folder, keep_running=False)
    with connected(server.url(BILLING_DATABASE)) as connection:
        billing = Billing(server.url(BILLING_DATABASE), connection)
        events_sent_to_stripe = billing.value(
            "select count(*) from billing_usage_events where usage_type = 'api_calls'"
        )
        assert events_sent_to_stripe == facts["parity"]["keys"] == 9
        assert billing.value("select count(*) from billing_usage_events") == facts["events"] + events_sent_to_stripe
        assert billing.value("select count(*) from recon.counter_repair") == facts["repaired"]["rows_repaired"]
        assert billing.value(MISMATCHES) == 0
        assert billing.value("select count(*) from recon.reconciliation_run") == 3
        oldest, folder = facts["closed"]["partition"], facts["closed"]["archive"]
        assert billing.value("select min(recon.billing_month(period_start)) from billing_usage_counters") == oldest
        assert billing.query("select partition from recon.sealed_month") == [(oldest,)]
        assert billing.query("select folder from recon.archived_month") == [(folder,)]
        assert Path(folder).is_relative_to(data_folder.parent / "demo-archive")
        assert (Path(folder) / "manifest.json").exists()
        assert (
            billing.value("select reason from recon.accepted_usage") == "all counters were right before these mishaps"
        )
    server.stop()
    assert sorted(one["kind"] for one in facts["parity"]["classes"]) == sorted(DifferenceClass)
    drifted = sum(mishap["keys"] for mishap in facts["mishaps"])
    assert facts["repaired"]["drift_count"] == facts["repaired"]["rows_repaired"] == drifted > 0
    assert (facts["first_run"]["blocked"], facts["first_run"]["rows_repaired"]) == (True, 0)
    assert len(facts["first_run"]["largest"]) == 20
    assert (facts["after"]["drift_count"], facts["after"]["dry_run"]) == (0, True)

    for name, value in (("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/billing"), ("RECON_MAX_REPAIRS", "0")):
        monkeypatch.setenv(name, value)
    second = recon(*SMALL, COLUMNS="250")
    assert second.exit_code == 0, second.said
    for mishap in facts["mishaps"]:
        assert " ".join(mishap["story"].split()) in second.said
    assert f"this is the first run that may repair stripe:remote_commands: {drifted} counters" in second.said
    figure = f"drift_count {drifted}"
    assert figure in second.said
    assert "no drift: every counter equals its event sum" in second.said
    assert f"Sealed {oldest} of stripe:remote_commands: {facts['closed']['key_count']:,} keys" in second.said
    assert "Archived and read back as sealed: 1 Parquet file in " in second.said
    assert "9 of 9 keys were compared with Stripe" in second.said
    assert all(f"cus_{kind}" in second.said for kind in DifferenceClass)
    assert len([*(data_folder.parent / "demo-archive").rglob("manifest.json")]) == 1, "that of the demo before is gone"


def test_an_embedded_database_is_prepared_by_the_command_that_is_advised_and_doctor_means_the_one_that_status_does(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.delenv("RECON_SCOPE")
    monkeypatch.delenv("DAGSTER_PG_URL")
    server = ensure_running(folder=data_folder, keep_running=False)
    server.ensure_database(BILLING_DATABASE)

    refused = recon("status")
    assert refused.exit_code == 1
    assert "Run recon init." in refused.err
    assert recon("init", "--with-billing-tables").exit_code == 0
    status, doctor = recon("status"), recon("doctor")
    assert "No run was made on this database yet" in status.said
    assert status.out.splitlines()[0] == doctor.out.splitlines()[0]
    assert doctor.exit_code == 0
    assert ", the embedded one: DATABASE_URL is not set" in status.said
    assert "Everything a run relies on is there." in doctor.said
    server.stop()


STARTED = """
import sys
from pathlib import Path
from recon_pipeline import embedded_postgres
embedded_postgres.default_data_folder = lambda: Path(sys.argv[1])
from recon_pipeline.faces.cli import main
main(sys.argv[2:])
"""


def test_a_command_that_starts_the_embedded_server_leaves_none_running(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL")
    for command in (("status",), ("backfills",), ("rejected", "4f1c9a02")):
        ended = subprocess.run(
            [sys.executable, "-c", STARTED, str(data_folder), *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert "was never prepared" in ended.stderr, command
        assert not (data_folder / "postmaster.pid").exists(), command
