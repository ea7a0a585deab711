"""A log that a warehouse subscribes to: its subscription goes on, whatever `recon init` is asked to do."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest

from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.commands.conftest import OwnServer, make_billing_tables, recon
from recon_pipeline_tests.reconciliation.billing import Billing, connected
from recon_pipeline_tests.simulation.pipeline import NO_BUDGETS, RunOptions, run

LOG = "billing_usage_events"
SUBSCRIBES = """
    create subscription warehouse connection '{}' publication warehouse
    with (create_slot = false, slot_name = warehouse)
"""
UNSUBSCRIBES = """
    alter subscription warehouse disable;
    alter subscription warehouse set (slot_name = none);
    drop subscription warehouse;
"""
PUBLICATIONS = {
    "the table": "create publication warehouse for table billing_usage_events",
    "its schema": "create publication warehouse for tables in schema public",
}
ALL_TABLES = "create publication warehouse for all tables"
COLUMNS_ADDED = f"select count(*) from pg_attribute where attrelid = '{LOG}'::regclass and attname = 'ingest_xid'"
WITHOUT_THE_COLUMN = """
    create publication warehouse for table billing_usage_events (
        id, gateway_name, gateway_customer_id, usage_type, request_id, quantity, period_start, period_end, created_at
    )
"""


@pytest.fixture
def published(own_server: OwnServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Billing]:
    """A database with the application's tables, on a server that replicates logically."""
    if "wal_level = logical" not in (own_server.cluster.folder / "postgresql.conf").read_text():
        own_server.stop()
        with (own_server.cluster.folder / "postgresql.conf").open("a") as settings:
            settings.write("wal_level = logical\n")
        own_server.start()
    url = own_server.create_database("published", make_billing_tables)
    monkeypatch.setenv("DATABASE_URL", url)
    with connected(url, autocommit=True) as connection:
        yield Billing(url, connection)


@dataclass
class Warehouse:
    """The subscriber's side."""

    billing: Billing

    def has(self, events: int) -> bool:
        """Whether so many events arrive within ten seconds."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if self.billing.value(f"select count(*) from {LOG}") == events:
                return True
            time.sleep(0.05)
        return False


@contextmanager
def subscribed(published: Billing, own_server: OwnServer, publication: str) -> Iterator[Warehouse]:
    """A database that subscribes to what the statement publishes, and has its first event."""
    published.query(publication)
    published.query("select pg_create_logical_replication_slot('warehouse', 'pgoutput')")
    with connected(own_server.create_database("warehouse", make_billing_tables), autocommit=True) as connection:
        connection.execute(SUBSCRIBES.format(own_server.url("published")).encode())
        published.record("a", 1)
        yield Warehouse(Billing(own_server.url("warehouse"), connection))
        for statement in filter(str.strip, UNSUBSCRIBES.split(";")):
            connection.execute(statement.encode())
    published.query("select pg_terminate_backend(active_pid) from pg_replication_slots where active; ")
    published.query("select pg_drop_replication_slot('warehouse')")


@pytest.fixture
def warehouse(published: Billing, own_server: OwnServer) -> Iterator[Warehouse]:
    """A database that subscribes to the log, and has its first event."""
    with subscribed(published, own_server, PUBLICATIONS["the table"]) as warehouse:
        yield warehouse


def test_init_stops_before_it_alters_and_what_it_advises_keeps_the_subscription_going(
    published: Billing, warehouse: Warehouse
) -> None:
    assert warehouse.has(1)

    refused = recon("init")

    assert refused.exit_code == 1
    assert "published by logical replication (publication warehouse)" in refused.err
    assert "The log was left as it is" in refused.err
    published.record("a", 1)
    assert warehouse.has(2)

    advised = refused.err.split("at each subscriber: ")[1].split(";")[0]
    warehouse.billing.query(" ".join(advised.split()))
    done = recon("init", "--subscribers-have-ingest-xid")
    assert (done.exit_code, "Runs will be incremental" in done.out) == (0, True), done.said
    published.record("a", 1)
    assert warehouse.has(3)
    assert recon("init").exit_code == 0, "the log has the column now"


@pytest.mark.parametrize("publication", PUBLICATIONS.values(), ids=PUBLICATIONS)
def test_every_way_to_publish_the_log_is_seen(published: Billing, publication: str) -> None:
    published.query(publication)

    assert "(publication warehouse)" in recon("init").err
    assert recon("init", "--without-ingest-xid").exit_code == 0
    assert published.value(COLUMNS_ADDED) == 0


def test_a_subscription_to_all_tables_goes_on_by_what_init_advises_before_it_creates_any(
    published: Billing, own_server: OwnServer
) -> None:
    with subscribed(published, own_server, ALL_TABLES) as warehouse:
        assert warehouse.has(1)

        refused = [recon("init"), recon("init", "--without-ingest-xid")]

        assert [one.exit_code for one in refused] == [1, 1], refused
        assert "Publication warehouse publishes all tables of this database" in refused[0].err
        assert "Nothing was changed." in refused[0].err
        assert published.value("select count(*) from pg_namespace where nspname = 'recon'") == 0
        create, switch, drop = advised_statements(refused[0].err)
        published.query(create.replace("..., ...", LOG))
        warehouse.billing.query(switch.replace("...", "warehouse"))
        published.query(drop)
        assert recon("init", "--without-ingest-xid").exit_code == 0
        published.record("a", 1)
        assert warehouse.has(2)


def advised_statements(said: str) -> tuple[str, str, str]:
    found = re.findall(r"((?:create publication|alter subscription|drop publication)[^;]+);", " ".join(said.split()))
    create, switch, drop = found
    return create, switch, drop


def test_tables_that_whatever_reads_a_publication_of_all_can_take_are_created_once_that_is_said(
    published: Billing,
) -> None:
    published.query(ALL_TABLES)

    assert "Runs will be incremental" in recon("init", "--subscribers-have-ingest-xid").out
    assert recon("init").exit_code == 0, "nothing is created any more"


@pytest.mark.parametrize("publication", [*PUBLICATIONS.values(), ALL_TABLES], ids=[*PUBLICATIONS, "everything"])
def test_the_printed_sql_stops_as_init_does_before_it_changes_anything(
    published: Billing, own_server: OwnServer, publication: str
) -> None:
    published.query(publication)

    with pytest.raises(AssertionError, match=r"(?s)ublication warehouse.*Nothing was changed.*subscriber"):
        own_server.psql(published.url, recon("init", "--print").out)

    assert published.value("select count(*) from pg_namespace where nspname = 'recon'") == 0
    own_server.psql(published.url, recon("init", "--print", "--subscribers-have-ingest-xid").out)
    assert published.value(COLUMNS_ADDED) == 1


def test_a_published_log_that_is_to_be_left_as_it_is_stops_no_later_start_until_somebody_asks_for_the_column(
    published: Billing,
) -> None:
    published.query(PUBLICATIONS["the table"])
    assert recon("init", "--without-ingest-xid").exit_code == 0

    started = recon("init")
    refused = recon("init", "--with-ingest-xid")
    started_again = recon("init")

    assert (started.exit_code, refused.exit_code, started_again.exit_code) == (0, 1, 0), refused.said
    assert "To change that: recon init --with-ingest-xid" in started.out
    assert "recon init --subscribers-have-ingest-xid" in refused.err
    assert published.value(COLUMNS_ADDED) == 0
    assert "Runs will be incremental" in recon("init", "--subscribers-have-ingest-xid").out


def test_a_publication_of_a_partition_is_seen(published: Billing) -> None:
    published.query(f"alter table {LOG} rename to old_log")
    published.query(f"create table {LOG} (like old_log including defaults) partition by range (period_start)")
    published.query(f"create table events_may partition of {LOG} default")
    published.query("create publication warehouse for table events_may")

    assert "(publication warehouse)" in recon("init").err


def test_a_publication_of_other_columns_or_tables_needs_nothing(published: Billing) -> None:
    published.query("create publication counters for table billing_usage_counters")
    published.query(WITHOUT_THE_COLUMN)

    assert recon("init").exit_code == 0


def test_an_event_that_is_deleted_at_the_publisher_lowers_no_counter_beside_the_subscribed_log(
    published: Billing, warehouse: Warehouse
) -> None:
    """What a subscription deletes fires no trigger, and its rows carry the transaction ids of another server."""
    published.record("b", 3)
    assert warehouse.has(2)
    subscriber = warehouse.billing
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DATABASE_URL", subscriber.url)
        assert "is filled by a subscription" in recon("init").said
    for customer, used in (("a", 1), ("b", 3)):
        subscriber.add_counter(customer, used)
    subscribed = BillingDatabase(subscriber.url)
    asked = RunOptions(budgets=replace(NO_BUDGETS, max_events_left=0))
    assert [run(subscribed, asked).outcome for _ in range(2)] == ["clean", "clean"]

    published.query("delete from billing_usage_events where gateway_customer_id = 'b'")
    assert warehouse.has(1)
    ended = run(subscribed, asked)

    assert (ended.outcome, subscriber.counters()) == ("not_clean", {"a": 1, "b": 3})
