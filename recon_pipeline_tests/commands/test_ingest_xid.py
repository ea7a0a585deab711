"""`recon init` lets runs read a live log in increments: nothing is rewritten, nobody waits long, none of it twice."""

import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from psycopg.errors import OperationalError

from recon_pipeline.core.errors import ReconError
from recon_pipeline.faces.init import prepare
from recon_pipeline.store.log import ingest_xid_installation
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.commands.conftest import MakeBilling, recon
from recon_pipeline_tests.commands.modes import XID_INDEXES, finding, is_incremental, mode, run_may, xid_indexes
from recon_pipeline_tests.reconciliation.billing import MAY, Billing, customers
from recon_pipeline_tests.reconciliation.traffic import PRODUCT, background, wait_until, wait_until_blocked

LOG = "billing_usage_events"
LONGEST_WAIT_SECONDS = 3.0
"""Twice the longest lock timeout: what a writer waits behind a step that waits for its lock, on a busy machine."""
SHAPE = """
    select concat_ws(' ', 'column', attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull,
        pg_get_expr(adbin, adrelid))
    from pg_attribute
    join pg_class on pg_class.oid = attrelid and relkind = 'r'
    left join pg_attrdef on adrelid = attrelid and adnum = attnum
    where relnamespace = 'public'::regnamespace and attnum > 0 and not attisdropped
    union all
    select concat_ws(' ', 'constraint', conrelid::regclass, pg_get_constraintdef(oid))
    from pg_constraint where connamespace = 'public'::regnamespace
    union all
    select indexdef from pg_indexes where schemaname = 'public'
    union all
    select pg_get_triggerdef(pg_trigger.oid)
    from pg_trigger join pg_class on pg_class.oid = tgrelid where relnamespace = 'public'::regnamespace
    union all
    select pg_get_functiondef(oid) from pg_proc where pronamespace = 'public'::regnamespace
    union all
    select concat_ws(' ', 'table', relname, relkind, relacl, relrowsecurity, relowner, reloptions)
    from pg_class where relnamespace = 'public'::regnamespace and relkind <> 'i'
"""
OLD_SNAPSHOT = ("set transaction isolation level repeatable read", "select 1")
CATALOG_ROWS = """
    select 'class', oid, xmin::text from pg_class where relnamespace in ('public'::regnamespace, 'recon'::regnamespace)
    union all
    select 'trigger', oid, xmin::text from pg_trigger
    union all
    select 'default', oid, xmin::text from pg_attrdef
    order by 1, 2
"""
FILL = """
    insert into billing_usage_events
        (gateway_name, gateway_customer_id, usage_type, request_id, quantity, period_start, period_end)
    select 'stripe', 'customer_' || n % 100, 'remote_commands', 'old-' || n, 1, '2025-05-01 00:00Z', '2025-06-01 00:00Z'
    from generate_series(1, 50000) as n;
    insert into billing_usage_counters
        (gateway_name, gateway_customer_id, usage_type, period_start, period_end, usage_count)
    select gateway_name, gateway_customer_id, usage_type, period_start, period_end, sum(quantity)
    from billing_usage_events
    group by 1, 2, 3, 4, 5;
"""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two attempts of 20 ms each."""
    monkeypatch.setattr(ingest_xid_installation, "LOCK_ATTEMPTS", 2)
    monkeypatch.setattr(ingest_xid_installation, "LOG_LOCK_TIMEOUT_MS", 20)


@contextmanager
def holding(billing: Billing, *statements: str) -> Iterator[Billing]:
    """An open transaction of the application that has run these."""
    with billing.session() as other:
        for statement in statements:
            other.query(statement)
        try:
            yield other
        finally:
            other.connection.rollback()


@contextmanager
def building(billing: Billing) -> Iterator[tuple[Future[Any], Billing]]:
    """`recon init` in the middle of building the index: it waits for an open transaction, which is handed over too."""
    with background() as start, holding(billing, *OLD_SNAPSHOT) as reader:
        init = start(prepared_or_error, billing)
        wait_until_blocked(billing, PRODUCT)
        yield init, reader


def prepared_or_error(billing: Billing) -> str | ReconError:
    try:
        return prepare(BillingDatabase(billing.url), with_billing_tables=False)
    except ReconError as error:
        return error


def test_init_adds_one_column_its_default_an_index_and_three_triggers_and_nothing_else(
    make_billing: MakeBilling,
) -> None:
    billing = make_billing("drop table billing_subscriptions", template="billing")
    before = {row[0] for row in billing.query(SHAPE)}

    output = recon("init")

    assert output.exit_code == 0
    assert "Runs will be incremental" in output.said
    after = {row[0] for row in billing.query(SHAPE)}
    assert before <= after
    note = "FOR EACH STATEMENT EXECUTE FUNCTION recon.note_changed_events()"
    assert after - before == {
        f"column {LOG} ingest_xid xid8 f pg_current_xact_id()",
        f"CREATE INDEX {LOG}_ingest_xid_idx ON public.{LOG} USING btree (ingest_xid)",
        f"CREATE TRIGGER recon_note_delete AFTER DELETE ON public.{LOG} REFERENCING OLD TABLE AS old_rows {note}",
        f"CREATE TRIGGER recon_note_update AFTER UPDATE ON public.{LOG} "
        f"REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows {note}",
        f"CREATE TRIGGER recon_note_truncate AFTER TRUNCATE ON public.{LOG} {note}",
    }
    assert is_incremental()


def test_what_init_added_is_taken_back_by_what_the_page_on_privileges_says(make_billing: MakeBilling) -> None:
    billing = make_billing(template="billing")
    before = sorted(row[0] for row in billing.query(SHAPE))
    recon("init")
    page = (Path(__file__).parents[2] / "docs" / "privileges.md").read_text(encoding="utf-8")
    take_back = page.partition("## Remove `ingest_xid`")[2].partition("```sql\n")[2].partition("```")[0]

    for statement in take_back.rstrip(";\n").split(";\n"):
        billing.query(statement)

    assert sorted(row[0] for row in billing.query(SHAPE)) == before
    assert mode() == ("full", f"{LOG} has no column ingest_xid")
    assert "`recon init --without-ingest-xid`" in page.partition("## Remove `ingest_xid`")[2]


def test_the_log_is_not_rewritten_old_events_stay_as_they_are_and_new_ones_know_their_transaction(
    make_billing: MakeBilling,
) -> None:
    billing = make_billing(template="billing")
    billing.record("old", 3)
    files = f"select pg_relation_filenode('{LOG}'), xmin::text, ctid::text, ingest_xid is null from {LOG}"
    before = billing.query(files.replace(", ingest_xid is null", ""))

    assert recon("init").exit_code == 0

    assert billing.query(files) == [(*before[0], True)]
    with billing.session() as application:
        application.record("new", 4)
        assert application.value(f"select ingest_xid = pg_current_xact_id() from {LOG} where quantity = 4")


def test_init_run_again_changes_nothing(make_billing: MakeBilling) -> None:
    billing = make_billing()
    before = billing.query(CATALOG_ROWS)
    output = recon("init")
    assert (output.exit_code, output.err) == (0, ""), "no statement was run"
    assert "Runs will be incremental" in output.said
    assert billing.query(CATALOG_ROWS) == before


def test_under_full_speed_writers_no_writer_fails_or_waits_long_and_no_increment_is_lost(
    make_billing: MakeBilling,
) -> None:
    billing = make_billing(FILL, template="billing")
    waits: list[float] = []
    stop: list[bool] = []

    def write(customer: str) -> None:
        with billing.session(autocommit=True) as application:
            while not stop:
                began = time.monotonic()
                assert application.record(customer, 2)
                waits.append(time.monotonic() - began)

    with background() as start:
        try:
            for customer in customers(4):
                start(write, customer)
            wait_until(lambda: len(waits) > 200)
            output = recon("init")
            recorded = len(waits)
            wait_until(lambda: len(waits) > recorded + 200)
        finally:
            stop.append(True)

    assert output.exit_code == 0, output.said
    assert is_incremental()
    assert max(waits) < LONGEST_WAIT_SECONDS
    assert billing.counters() == billing.event_sums()
    for _ in range(2):
        run = run_may()
        assert (run["mode"], run["drift_count"]) == ("incremental", 0)
        assert billing.record("customer_0000", 5)


def test_a_lock_that_is_never_free_is_reported_and_the_next_init_continues_where_it_was(
    make_billing: MakeBilling, impatient: None
) -> None:
    billing = make_billing(template="billing")
    steps: list[str] = []
    with billing.session() as writer:

        def hold_up_the_default(step: str) -> None:
            steps.append(step)
            if "set default" in step:
                writer.record("a", 3)

        with pytest.raises(ReconError) as output:
            prepare(BillingDatabase(billing.url), with_billing_tables=False, on_step=hold_up_the_default)

    assert output.value.what == f"Another session held a lock on {LOG} in each of 2 attempts."
    assert "runs will read the whole log until this is done" in output.value.changed
    assert "pg_stat_activity" in output.value.fix
    assert len(steps) == 2
    assert mode() == ("full", f"{LOG}.ingest_xid is not filled with pg_current_xact_id()")
    run = run_may()
    assert (run["mode"], run["mode_reason"]) == mode()

    later: list[str] = []
    assert "Runs will be incremental" in prepare(
        BillingDatabase(billing.url), with_billing_tables=False, on_step=later.append
    )
    assert not [step for step in later if "add column" in step]
    assert is_incremental()


def test_a_lock_that_is_given_back_in_time_is_waited_for(
    make_billing: MakeBilling, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    billing = make_billing(template="billing")
    with holding(billing, f"lock table {LOG} in row exclusive mode") as writer:

        def give_back(_: object) -> bool:
            writer.connection.rollback()
            return True

        # Asked after the first attempt failed.
        monkeypatch.setattr(ingest_xid_installation, "is_lock_conflict", give_back)
        output = recon("init")
    assert output.exit_code == 0, output.said
    assert is_incremental()


def test_a_process_that_stands_still_in_a_step_goes_on_in_a_new_session(
    make_billing: MakeBilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a throttled container does: the server ends its session, so that the log is not locked meanwhile."""
    billing = make_billing(template="billing")
    steps: list[str] = []

    def stand_still(step: str) -> None:
        steps.append(step)
        time.sleep(0.5)

    monkeypatch.setattr(ingest_xid_installation, "IDLE_TIMEOUT_MS", 100)
    ended = prepare(BillingDatabase(billing.url), with_billing_tables=False, on_step=stand_still)

    assert "Runs will be incremental" in ended
    assert len(steps) == len(set(steps)) > 3
    assert is_incremental()


@pytest.mark.parametrize("killed_by", ["pg_terminate_backend", "pg_cancel_backend"])
def test_an_index_left_by_a_build_that_was_killed_is_found_and_built_again(
    make_billing: MakeBilling, killed_by: str
) -> None:
    billing = make_billing(template="billing")
    billing.record("a", 3)
    with building(billing) as (init, _):
        billing.query(f"select {killed_by}(pid) from pg_stat_activity where query like 'create index concurrently%'")
        assert isinstance(init.result(timeout=20), ReconError)

    assert xid_indexes(billing) == [(LOG, False)]
    reason = f"index {LOG}_ingest_xid_idx on ingest_xid is invalid: its build failed"
    assert mode() == ("full", reason)
    assert finding("mode")["mend"] == "recon init --with-ingest-xid"
    assert run_may()["mode_reason"] == reason

    output = recon("init")
    assert (output.exit_code, output.out.count("Runs will be incremental")) == (0, 1), output.said
    assert f"drop index concurrently if exists public.{LOG}_ingest_xid_idx;" in output.err
    assert xid_indexes(billing) == [(LOG, True)]
    assert is_incremental()


def test_an_index_that_is_being_built_is_left_alone(make_billing: MakeBilling) -> None:
    billing = make_billing(template="billing")
    with building(billing) as (init, reader):
        before = billing.query(XID_INDEXES)
        assert [(row.on_table, row.is_valid) for row in before] == [(LOG, False)]
        reason = f"index {LOG}_ingest_xid_idx on ingest_xid is being built"
        assert mode() == ("full", reason)
        second = recon("init")
        assert (second.exit_code, second.err) == (0, ""), second.said
        assert reason in second.said
        assert [row[:2] for row in billing.query(XID_INDEXES)] == [row[:2] for row in before]
        reader.connection.rollback()
        assert "Runs will be incremental" in init.result(timeout=20)
    assert [row[:2] for row in billing.query(XID_INDEXES)] == [row[:2] for row in before]
    assert is_incremental()


def test_an_index_that_a_dba_builds_again_beside_ours_leaves_runs_incremental(billing: Billing) -> None:
    with (
        billing.session(autocommit=True, application_name="dba") as dba,
        background() as start,
        holding(billing, *OLD_SNAPSHOT),
    ):
        start(dba.query, f"reindex index concurrently {LOG}_ingest_xid_idx")
        wait_until_blocked(billing, "dba")
        assert len(xid_indexes(billing)) == 2
        assert is_incremental()
    assert xid_indexes(billing) == [(LOG, True)]


def test_a_step_that_runs_and_does_not_help_is_reported_and_does_not_go_on_for_ever(make_billing: MakeBilling) -> None:
    make_billing(f"create index {LOG}_ingest_xid_idx on {LOG} (quantity)", template="billing")
    output = recon("init")
    assert output.exit_code == 1
    assert f"{LOG} has no index on ingest_xid, and this was run 5 times and did not help" in output.err
    assert "Run that statement by hand" in output.err
    assert mode()[0] == "full"


def test_a_server_with_short_timeouts_for_its_roles_lets_the_index_be_built(make_billing: MakeBilling) -> None:
    billing = make_billing(template="billing")
    settings = "alter database %I set statement_timeout = 300; alter database %1$I set lock_timeout = 300"
    billing.query(f"do $$ begin execute format('{settings}', current_database()); end $$")
    with building(billing) as (init, reader):
        with billing.session() as new, pytest.raises(OperationalError, match="statement timeout"):
            new.query("select pg_sleep(2)")  # by now a build with such a limit would have been cancelled, too
        assert not init.done()
        reader.connection.rollback()
        assert "Runs will be incremental" in init.result(timeout=20)


def test_events_deleted_while_a_trigger_was_off_are_noticed_by_the_first_run_after_init(billing: Billing) -> None:
    for customer in ("a", "b"):
        billing.record(customer, 7)
    assert run_may()["mode"] == "incremental"
    billing.query(f"alter table {LOG} disable trigger recon_note_delete")
    assert mode() == ("full", f"trigger recon_note_delete on {LOG} is disabled or out of date")
    billing.query(f"delete from {LOG} where gateway_customer_id = 'a'")

    assert "Runs will be incremental" in recon("init").said

    run = run_may()
    assert (run["mode"], run["rows_repaired"]) == ("incremental", 1)
    assert run["rebuilt_because"]
    assert billing.counters() == {"a": 0, "b": 7}
    assert run_may()["rebuilt_because"] is None


@pytest.mark.parametrize(
    "without_ids",
    [f"alter table {LOG} alter column ingest_xid drop default", f"alter table {LOG} drop column ingest_xid"],
)
def test_events_that_came_without_a_transaction_id_are_noticed_by_the_first_run_after_init(
    billing: Billing, without_ids: str
) -> None:
    billing.record("a", 7)
    assert run_may()["mode"] == "incremental"
    billing.query(without_ids)
    assert mode()[0] == "full"
    billing.add_event("a", 3)

    assert "Runs will be incremental" in recon("init").said

    run = run_may()
    assert (run["mode"], run["rows_repaired"]) == ("incremental", 1)
    assert run["rebuilt_because"]
    assert billing.counters() == {"a": 10}


def test_ids_of_another_server_are_noted_with_a_fix_that_works(billing: Billing) -> None:
    billing.record("a", 7)
    assert finding("transaction ids") == {}
    billing.query(f"update {LOG} set ingest_xid = '999999999999'")
    found = finding("transaction ids")
    assert found["verdict"] == "note"
    assert "restore on another server" in found["detail"]
    assert run_may()["drift_count"] == 0

    drop, _, init = found["mend"].partition("; then ")
    billing.query(drop)
    assert "Runs will be incremental" in recon(*init.split()[1:]).said

    assert finding("transaction ids") == {}
    assert run_may()["drift_count"] == 0
    assert is_incremental()


def test_without_schema_recon_the_application_goes_on_and_its_triggers_are_gone(billing: Billing) -> None:
    billing.record("a", 7)
    billing.query("drop schema recon cascade")
    assert billing.value("select count(*) from pg_trigger where tgrelid = %s::regclass and not tgisinternal", LOG) == 0
    billing.record("a", 3)
    billing.query(f"update {LOG} set quantity = 4 where quantity = 3")
    billing.query(f"delete from {LOG} where quantity = 4")
    billing.query(f"truncate {LOG}")
    assert billing.record("b", 1)
    assert finding("mode")["detail"].startswith("full")

    assert "Runs will be incremental" in recon("init").said
    assert is_incremental()
    assert billing.counters(period=MAY) == {"a": 10, "b": 1}
