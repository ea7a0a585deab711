"""`recon init` prepares a database once, under a writing application, and leaves the application's tables alone."""

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from recon_pipeline.core.errors import ReconError
from recon_pipeline.faces.init import prepare
from recon_pipeline.store.log.tables import COUNTERS, EVENTS, SUBSCRIPTIONS
from recon_pipeline.store.postgres import database
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.postgres.schema_version import SCHEMA_VERSION
from recon_pipeline.store.records import migrate
from recon_pipeline_tests.commands.conftest import MakeBilling, OwnServer, make_billing_tables, recon
from recon_pipeline_tests.reconciliation.billing import Billing, connected

HOLD_MIGRATIONS = "select pg_advisory_xact_lock(720271125)"
CATALOG = """
    select jsonb_build_array(
        relation.relname, relation.relkind, relation.relacl, relation.relrowsecurity, relation.relforcerowsecurity,
        relation.relowner, relation.reloptions,
        (select jsonb_agg(to_jsonb(a) order by attnum) from pg_attribute as a where attrelid = relation.oid),
        (select jsonb_agg(pg_get_constraintdef(oid) order by conname) from pg_constraint where conrelid = relation.oid),
        (select jsonb_agg(pg_get_indexdef(indexrelid) order by indexrelid) from pg_index where indrelid = relation.oid),
        (select jsonb_agg(pg_get_triggerdef(oid) order by oid) from pg_trigger where tgrelid = relation.oid)
    )
    from pg_class as relation
    where relnamespace = 'public'::regnamespace
    order by relname
"""
FUNCTIONS = """
    select proname, pg_get_functiondef(oid), proacl
    from pg_proc
    where pronamespace = 'public'::regnamespace
    order by proname
"""


def application_side(billing: Billing) -> list[Any]:
    """Everything that the catalog says about what is the application's."""
    return billing.query(CATALOG) + billing.query(FUNCTIONS)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two attempts of 20 ms each instead of ten of 2 s."""
    monkeypatch.setattr(migrate, "LOCK_ATTEMPTS", 2)
    monkeypatch.setitem(database.begin.__wrapped__.__kwdefaults__, "lock_timeout_ms", 20)  # pyright: ignore[reportFunctionMemberAccess]


@contextmanager
def holding(billing: Billing, statement: str) -> Iterator[Billing]:
    """Another session that holds what the statement locks."""
    with billing.session() as other:
        other.query(statement)
        yield other
        other.connection.rollback()


def test_init_prepares_a_database_once_and_says_so_the_second_time(make_billing: MakeBilling) -> None:
    billing = make_billing(template="billing")
    first = recon("init")
    oids = billing.query("select oid, xmin from pg_class where relnamespace = 'recon'::regnamespace order by oid")
    second = recon("init")

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert f"is at version {SCHEMA_VERSION} now (was: not there)" in first.said
    assert f"is at version {SCHEMA_VERSION} already" in second.said
    assert oids
    assert oids == billing.query(
        "select oid, xmin from pg_class where relnamespace = 'recon'::regnamespace order by oid"
    )


@pytest.mark.parametrize("options", [(), ("--with-billing-tables",)])
def test_init_without_ingest_xid_changes_nothing_of_the_applications_tables_and_functions(
    make_billing: MakeBilling, options: tuple[str, ...]
) -> None:
    billing = make_billing(
        """
        drop index billing_usage_events_customer;
        alter table billing_usage_events add column tenant text;
        drop table billing_subscriptions;
        create or replace function record_billing_usage_event(
            p_gateway_name text, p_gateway_customer_id text, p_usage_type text, p_request_id text,
            p_period_start timestamptz, p_period_end timestamptz, p_quantity integer default 1,
            p_event_timestamp timestamptz default now(), p_metadata jsonb default '{}'
        ) returns boolean language sql as 'select true /* the application''s own */';
        """,
        template="billing",
    )
    before = application_side(billing)

    assert recon("init", "--without-ingest-xid", *options).exit_code == 0

    assert application_side(billing) == before


def test_init_without_ingest_xid_takes_no_lock_of_the_applications_tables(
    make_billing: MakeBilling, impatient: None
) -> None:
    billing = make_billing(template="billing")
    with holding(billing, f"lock table {EVENTS}, {COUNTERS}, {SUBSCRIPTIONS} in access exclusive mode"):
        output = recon("init", "--without-ingest-xid")
    assert output.exit_code == 0, output.said


@pytest.mark.parametrize("missing", [(EVENTS, COUNTERS), (COUNTERS,)])
def test_init_on_a_database_that_is_not_the_applications_says_so_and_creates_nothing(
    make_billing: MakeBilling, missing: tuple[str, ...]
) -> None:
    billing = make_billing(f"drop table {', '.join(missing)}", template="billing")
    output = recon("init")
    assert output.exit_code == 1
    assert f"There is no table {missing[0]} in " in output.said
    assert "Nothing was changed." in output.said
    assert "Point DATABASE_URL at the application's database" in output.said
    assert "For a new project: recon init --with-billing-tables." in output.said
    assert billing.value("select to_regnamespace('recon')") is None


def test_init_with_billing_tables_prepares_an_empty_database_for_the_whole_pipeline(make_billing: MakeBilling) -> None:
    billing = make_billing(template=None)

    first, second = recon("init", "--with-billing-tables"), recon("init", "--with-billing-tables")

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "already" in second.said
    assert billing.record("a", 3)
    assert billing.counters() == {"a": 3}


def test_init_with_billing_tables_refuses_to_complete_half_an_application(make_billing: MakeBilling) -> None:
    billing = make_billing(f"drop table {COUNTERS}", template="billing")
    output = recon("init", "--with-billing-tables")
    assert output.exit_code == 1
    assert f"only {EVENTS}, {SUBSCRIPTIONS} is there" in output.said
    assert billing.value("select to_regnamespace('recon')") is None


def test_two_at_once_do_the_work_once(make_billing: MakeBilling) -> None:
    billing = make_billing(template=None)
    together = threading.Barrier(4)

    def init() -> str:
        together.wait()
        return prepare(BillingDatabase(billing.url), with_billing_tables=True)

    with ThreadPoolExecutor(4) as threads:
        said = [future.result() for future in [threads.submit(init) for _ in range(4)]]

    assert sorted(" now " in sentence for sentence in said) == [False, False, False, True]
    assert billing.value("select count(*) from recon.schema_version") == 1
    assert any("Runs will be incremental" in sentence for sentence in said)
    assert billing.value("select count(*) from pg_indexes where indexdef like '%(ingest_xid)'") == 1
    assert billing.value("select count(*) from pg_trigger where tgname like 'recon_note_%'") == 3


def test_a_lock_that_is_never_free_is_reported_and_nothing_was_changed(
    make_billing: MakeBilling, impatient: None
) -> None:
    billing = make_billing(template="billing")
    with holding(billing, HOLD_MIGRATIONS):
        output = recon("init")
    assert output.exit_code == 1
    assert re.search(r"Another session held a lock in \S+ in each of 2 attempts", output.err)
    assert "Nothing was changed." in output.err
    assert "pg_stat_activity" in output.err
    assert billing.value("select to_regnamespace('recon')") is None


def test_a_lock_that_is_given_back_in_time_is_waited_for(make_billing: MakeBilling, impatient: None) -> None:
    billing = make_billing(template="billing")
    with holding(billing, HOLD_MIGRATIONS) as other:

        def give_back(_: object) -> bool:
            other.connection.rollback()
            return True

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(migrate, "is_lock_conflict", give_back)  # asked after the first attempt failed
            output = recon("init")
    assert output.exit_code == 0, output.said


def test_a_locked_table_of_schema_recon_is_reported_as_a_lock(make_billing: MakeBilling, impatient: None) -> None:
    billing = make_billing()
    with holding(billing, "lock table recon.schema_version in access exclusive mode"):
        output = recon("init")
    assert output.exit_code == 1
    assert "The work was put off, since another session has a lock" in output.err
    assert "pg_stat_activity" in output.err


def test_a_database_prepared_by_a_newer_release_is_left_alone(make_billing: MakeBilling) -> None:
    make_billing("update recon.schema_version set version_num = '9999'")
    output = recon("init")
    assert output.exit_code == 1
    assert "Schema recon is at version 9999, which this code" in output.err
    assert "Nothing was changed." in output.err


def test_a_half_prepared_schema_is_completed(make_billing: MakeBilling) -> None:
    billing = make_billing("create schema recon", template="billing")
    assert recon("init").exit_code == 0
    assert billing.value("select version_num from recon.schema_version") == SCHEMA_VERSION


def test_a_role_that_may_not_create_a_schema_gets_the_statement_for_the_owner(own_server: OwnServer) -> None:
    url = own_server.create_database("forbidden", make_billing_tables)
    with connected(url, autocommit=True) as connection:
        connection.execute("drop role if exists powerless")
        connection.execute("create role powerless login")
        output = recon("init", DATABASE_URL=url.replace("postgres@", "powerless@"))
        assert output.exit_code == 1
        assert "Role powerless may not create a schema in forbidden." in output.err
        assert "create schema recon authorization powerless;" in output.err
        connection.execute("create schema recon authorization powerless")

    assert recon("init", DATABASE_URL=url.replace("postgres@", "powerless@")).exit_code == 0


def test_prepare_reports_a_lost_connection_as_such(make_billing: MakeBilling) -> None:
    billing = make_billing(template="billing")
    with pytest.raises(ReconError, match="could not be reached"):
        prepare(BillingDatabase(f"{billing.url}&connect_timeout=1&hostaddr=203.0.113.1x"), with_billing_tables=False)


def test_a_log_that_is_a_foreign_table_is_left_as_it_is_and_runs_are_said_to_be_refused(
    make_billing: MakeBilling,
) -> None:
    make_billing(
        """
        drop table billing_usage_events;
        create foreign data wrapper nothing;
        create server nowhere foreign data wrapper nothing;
        create foreign table billing_usage_events (
            id uuid, gateway_name text, gateway_customer_id text, usage_type text, request_id text, quantity integer,
            period_start timestamptz, period_end timestamptz, event_timestamp timestamptz, created_at timestamptz
        ) server nowhere
        """,
        template="billing",
    )

    output = recon("init")

    assert output.exit_code == 0
    assert "runs will be refused: billing_usage_events is a foreign table: it can neither be locked" in output.said
    assert "is a foreign table" in recon("doctor").said


def test_init_as_json_is_one_object_that_says_what_was_done_or_what_would_be(make_billing: MakeBilling) -> None:
    billing = make_billing(template="billing")

    printed, done = recon("init", "--print", "--json"), recon("init", "--json")

    assert (printed.exit_code, printed.json["success"]) == (0, True)
    assert "create schema recon" in printed.json["sql"]
    assert (done.exit_code, done.json["success"]) == (0, True)
    assert f"is at version {SCHEMA_VERSION} now" in done.json["report"]
    assert billing.url.rpartition("/")[2].partition("?")[0] in done.json["database"]
    assert (done.json["mode"], done.json["mode_reason"]) == ("incremental", None)
    left_alone = recon("init", "--without-ingest-xid", "--json").json
    assert (left_alone["mode"], left_alone["mode_reason"]) == ("incremental", None), "the log has the column"
    billing.query("alter table billing_usage_events drop column ingest_xid")
    full = recon("init", "--json").json
    assert (full["mode"], full["mode_reason"]) == ("full", "billing_usage_events has no column ingest_xid")
    billing.query("alter table billing_usage_events alter column period_start drop not null, drop column period_end")
    refused = recon("init", "--json").json
    assert (refused["success"], refused["mode"], "period_end" in refused["mode_reason"]) == (True, None, True)


def test_status_before_any_run_says_so(billing: Billing) -> None:
    said = recon("status").said

    assert "No run was made on this database yet. To compare without repairing: recon reconcile --all --dry-run" in said
    assert "No run shown here" not in said
    assert "started (UTC)" not in said, "a list of no runs"


def test_status_after_a_dry_run_alone_says_that_nothing_was_verified(billing: Billing, orchestrated: None) -> None:
    billing.record("a", 5)
    assert recon("reconcile", "--period", "2025-05", "--dry-run").exit_code == 0

    said = " ".join(recon("status").out.split())

    assert "No run shown here has verified that every counter matches; a dry run only compares." in said
