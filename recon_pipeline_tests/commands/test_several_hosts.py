"""A URL with two hosts, on two real servers with streaming replication, one of which is lost."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from recon_pipeline.core.errors import REPAIRS_STAY, driver_reason
from recon_pipeline.store.counters.chunks import Repairer
from recon_pipeline_tests.commands.conftest import MakeBilling, migrate, recon
from recon_pipeline_tests.reconciliation.billing import Billing, connected
from recon_pipeline_tests.support.dagster import DAGSTER_YAML, make_dagster_tables
from recon_pipeline_tests.support.postgres import PostgresServer
from recon_pipeline_tests.support.replicas import Replicas, replicas, stop_at_once

WHY = ("--reason", "TICKET-9")
COMMANDS = (
    ("init",),
    ("status",),
    ("pause", *WHY),
    ("resume",),
    ("hold", "--customer", "a", *WHY, "--until", "3d"),
    ("release", "--customer", "a", *WHY),
    ("retention",),
    ("explain", "--customer", "a"),
    ("backfills",),
    ("sql", "read_months", "--explain"),
)
A_RUN = ("reconcile", "--period", "2025-05", "--json")


@pytest.fixture
def pair(postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Replicas]:
    """A primary with a billing database and Dagster's, its standby, and URLs that name both."""
    shutil.copy(DAGSTER_YAML, tmp_path)
    with replicas(postgres_server) as pair:
        for name, fill in (("billing", migrate), ("dagster", make_dagster_tables)):
            pair.create_database(name)
            fill(pair.of_first(name))
        pair.be_synchronous()
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
        monkeypatch.setenv("DATABASE_URL", pair.url("billing"))
        monkeypatch.setenv("DAGSTER_PG_URL", pair.url("dagster"))
        yield pair


def lose_increments(url: str, *customers: str) -> None:
    with connected(url, autocommit=True) as connection:
        billing = Billing(url, connection)
        for customer in customers:
            billing.record(customer, 10)
            billing.set_counter(customer, 4)


def counters(url: str) -> dict[str, int]:
    with connected(url, autocommit=True) as connection:
        return Billing(url, connection).counters()


def test_a_failover_in_the_middle_of_a_run_loses_no_repair_and_the_next_run_ends_clean(
    pair: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_increments(pair.of_first("billing"), "a", "b", "c")
    free_keys: Callable[[Repairer, range], list[int]] = Repairer.free_keys

    def then_fail_over(self: Repairer, ordinals: range) -> list[int]:
        busy = free_keys(self, ordinals)
        monkeypatch.setattr(Repairer, "free_keys", free_keys)
        stop_at_once(pair.first)
        pair.promote()
        return busy

    monkeypatch.setattr(Repairer, "free_keys", then_fail_over)
    cut_off = recon(*A_RUN)
    after = recon(*A_RUN)

    assert cut_off.exit_code == 1
    # Either database may be the first that says so.
    assert REPAIRS_STAY in cut_off.said or "What was committed before stays" in cut_off.said
    assert (after.exit_code, after.json["drift_count"]) == (0, 0), after.said
    assert counters(pair.of_second("billing")) == {"a": 10, "b": 10, "c": 10}
    with psycopg.connect(pair.of_second("billing")) as connection:
        ledger = connection.execute("select sum(usage_count_after - usage_count_before) from recon.counter_repair")
        outcomes = connection.execute("select outcome from recon.reconciliation_run order by started_at")
        assert (ledger.fetchall(), outcomes.fetchall()) == ([(18,)], [("failed",), ("clean",)])


def test_every_command_goes_to_the_host_that_takes_writes_and_to_none_that_lags(
    pair: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_increments(pair.of_first("billing"), "a")
    for standby_first in (True, False):
        monkeypatch.setenv("DATABASE_URL", pair.url("billing", standby_first=standby_first))
        for command in COMMANDS:
            output = recon(*command)
            assert output.exit_code == 0 or command == ("status",), (command, output.said)
    for named in (pair.of_second("billing"), f"{pair.of_second('billing')}&target_session_attrs=any"):
        monkeypatch.setenv("DATABASE_URL", named)
        for command in COMMANDS:
            output = recon(*command)
            assert output.exit_code == 1, command
            assert "is a standby" in output.said, (command, output.said)
            assert "Point DATABASE_URL at the primary." in output.said
    monkeypatch.setenv("DATABASE_URL", pair.url("billing"))

    stop_at_once(pair.first)
    output = recon("status")
    pair.second.stop()
    both_down = recon("status")

    assert "session is read-only" in output.said
    for said in (output.said, both_down.said):
        for host in (pair.first.folder, pair.second.folder):
            assert said.count(f'{host}/.s.PGSQL.5432" failed') == 1


def test_dagsters_storage_out_of_reach_is_reported_with_each_host(
    make_billing: MakeBilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        sleep = staticmethod(lambda _: None)

    make_billing()
    monkeypatch.setattr("dagster_postgres.utils.time", Clock)

    said = recon(*A_RUN, DAGSTER_PG_URL="postgresql://app@127.0.0.1:1,127.0.0.1:2/dagster").said

    assert "port 1 failed: Connection refused; connection to server at" in said.replace("\\", "")
    assert "port 2 failed: Connection refused" in said


def test_a_role_whose_transactions_are_read_only_is_reported_as_that(make_billing: MakeBilling) -> None:
    billing = make_billing()
    billing.query("alter role current_user set default_transaction_read_only = on")
    try:
        output = recon("pause", *WHY)
    finally:
        billing.query("alter role current_user reset default_transaction_read_only")

    assert output.exit_code == 1
    assert "takes no writes: cannot execute INSERT in a read-only transaction (statement append_control)" in output.said
    assert "reset default_transaction_read_only" in output.said


def test_what_a_driver_says_of_one_server_stays_its_first_line() -> None:
    assert driver_reason('column "a" does not exist\nLINE 1: select a') == 'column "a" does not exist'
    assert driver_reason("\n") == ""
    timed_out = "connection timeout expired"
    several = f"{timed_out}\nMultiple connection attempts failed. All failures were:\n" + "\n".join(
        f"- host: {host!r}, port: '5432', hostaddr: '10.0.0.{host[-1]}': {timed_out}" for host in ("db1", "db2")
    )
    assert driver_reason(several) == f"db1: {timed_out}; db2: {timed_out}"
