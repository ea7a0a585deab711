"""What a repair does while it holds counters: the application waits for it, whatever statistics the planner has."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event

from recon_pipeline.core.event_identity import EventIdentity
from recon_pipeline.store.counters import repair
from recon_pipeline.store.postgres.statements import with_name
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.reconciliation.conftest import MakeBilling
from recon_pipeline_tests.reconciliation.product import new_run
from recon_pipeline_tests.reconciliation.test_table_shapes import INDEXED, NO_UNIQUE
from recon_pipeline_tests.reconciliation.traffic import wait_until

KEYS, NEWS = 400, 20_000
MANY_KEYS = 3_000
RECORD = """
    insert into billing_usage_events (
        gateway_name, gateway_customer_id, usage_type, request_id, period_start, period_end
    )
    select
        'stripe', 'customer-' || mod(n, %s), 'remote_commands', gen_random_uuid()::text,
        '2025-05-01 00:00Z', '2025-06-01 00:00Z'
    from generate_series(1, %s) as n
"""
COUNT = """
    insert into billing_usage_counters (
        gateway_name, gateway_customer_id, usage_type, period_start, period_end, usage_count
    )
    select gateway_name, gateway_customer_id, usage_type, period_start, period_end, count(*) + 7
    from billing_usage_events
    group by 1, 2, 3, 4, 5
"""
FETCHED = """
    select sum(idx_tup_read)::bigint from pg_stat_user_indexes where relname = 'billing_usage_counters'
"""
MANY_UNCOUNTED = 20_000
UNCOUNTED = """
    insert into recon.uncounted_backfill
        (gateway_name, usage_type, gateway_customer_id, period_start, period_end, inserted_xid, units)
    select
        'stripe', 'remote_commands', 'customer-' || n, '2025-05-01 00:00Z', '2025-06-01 00:00Z',
        (%s::text)::xid8, 1
    from generate_series(0, %s - 1) as n
"""
OVER = """
    insert into recon.hold (gateway_customer_id, reason, held_by, until)
    select 'customer-' || (KEYS + n), 'was disputed', 'ada', now() - interval '1 day' from generate_series(1, %s) as n
""".replace("KEYS", str(KEYS))

STATISTICS = pytest.mark.parametrize("statistics", ["analyze", "select"], ids=["analyzed before", "never analyzed"])


@contextmanager
def busied(billing: Billing, statistics: str) -> Iterator[Billing]:
    """400 wrong counters, 20,000 events beyond a horizon that an old transaction holds; statistics are of before."""
    for table in ("billing_usage_events", "billing_usage_counters"):
        billing.query(f"alter table {table} set (autovacuum_enabled = off)")
    billing.query(RECORD, KEYS, 5 * KEYS)
    billing.query(COUNT)
    new_run(billing.url).compare()
    billing.query(statistics)
    with billing.session() as old:
        old.value("select pg_current_xact_id()::text")
        billing.query(RECORD, KEYS, NEWS)
        yield billing


@pytest.fixture
def busy(incremental_billing: Billing, statistics: str) -> Iterator[Billing]:
    with busied(incremental_billing, statistics) as billing:
        yield billing


@STATISTICS
def test_events_are_read_once_by_index_and_no_event_is_compared_with_each_key(busy: Billing) -> None:
    run = new_run(busy.url)
    run.compare()

    with explained(run.database.engine, "repair_locked_counters") as plans:
        outcome = run.repair()

    assert outcome.repaired == KEYS
    assert plans
    nodes = [node for plan in plans for node in all_nodes(plan)]
    of_log = [node for node in nodes if node.get("Relation Name") == "billing_usage_events"]
    assert {node["Node Type"] for node in of_log} <= {"Index Scan", "Bitmap Heap Scan"}
    read = sum((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in of_log)
    assert read == NEWS + 5 * KEYS
    compared = sum(node.get("Rows Removed by Join Filter", 0) * node["Actual Loops"] for node in nodes)
    assert compared < NEWS, "events, or keys, are looped through for each key"


def test_a_counter_is_looked_up_by_its_key_although_statistics_say_that_a_month_has_few(
    incremental_billing: Billing,
) -> None:
    """As after the first analyze of a new month: an index on the month alone seems as good as the unique key."""
    for table in ("billing_usage_events", "billing_usage_counters"):
        incremental_billing.query(f"alter table {table} set (autovacuum_enabled = off)")
    incremental_billing.query(RECORD, 1, 1)
    incremental_billing.query(COUNT)
    incremental_billing.query("analyze")
    incremental_billing.query("delete from billing_usage_counters")
    incremental_billing.query(RECORD, MANY_KEYS, 2 * MANY_KEYS)
    incremental_billing.query(COUNT)
    run = new_run(incremental_billing.url)
    run.compare()
    outcome = run.repair()
    assert outcome.repaired == MANY_KEYS

    run.database.close()  # what a session has read is counted once it has ended
    wait_until(lambda: incremental_billing.value(FETCHED) >= MANY_KEYS)
    assert incremental_billing.value(FETCHED) < 20 * MANY_KEYS, "each was looked for among all counters of its month"


@STATISTICS
@pytest.mark.parametrize("further", [(), ("usage_type", "event_timestamp")], ids=["request id", "three columns"])
@pytest.mark.parametrize("name", ["keys_sharing_events", "repair_locked_counters"])
def test_each_event_is_looked_for_once_by_its_request_id_where_the_log_admits_repetitions(
    make_incremental_billing: MakeBilling, statistics: str, further: tuple[str, ...], name: str
) -> None:
    identity = EventIdentity(("gateway_name", "request_id", *further))
    with busied(make_incremental_billing(NO_UNIQUE + INDEXED), statistics) as billing:
        run = new_run(billing.url, event_identity=identity)
        run.compare()

        with explained(run.database.engine, name) as plans:
            assert run.repair().repaired == KEYS

    assert plans
    nodes = [node for plan in plans for node in all_nodes(plan)]
    of_log = [node for node in nodes if node.get("Relation Name") == "billing_usage_events"]
    assert {node["Node Type"] for node in of_log} <= {"Index Scan", "Bitmap Heap Scan"}
    read = sum((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in of_log)
    assert read <= 2 * (NEWS + 5 * KEYS) + KEYS
    compared = sum(node.get("Rows Removed by Join Filter", 0) * node["Actual Loops"] for node in nodes)
    assert compared <= NEWS + 5 * KEYS, "no event is compared with more than itself"


def test_a_chunk_reads_the_backfilled_units_of_its_own_keys_however_many_others_wait_to_be_counted(
    incremental_billing: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere a backfill of months of usage was stopped before its run had counted it."""
    monkeypatch.setattr(repair, "CHUNK_KEYS", 20)
    incremental_billing.query(RECORD, KEYS, 2 * KEYS)
    incremental_billing.query(COUNT)
    incremental_billing.query(UNCOUNTED, 3, 10)
    incremental_billing.query("analyze recon.uncounted_backfill")
    incremental_billing.query(UNCOUNTED, 4, MANY_UNCOUNTED)
    run = new_run(incremental_billing.url, settle_seconds=60)
    run.compare()

    with explained(run.database.engine, "repair_locked_counters") as plans:
        assert run.repair().repaired == KEYS

    assert len(plans) >= KEYS // 20
    nodes = [node for plan in plans for node in all_nodes(plan)]
    read = sum(rows_read(node) for node in nodes if node.get("Relation Name") == "uncounted_backfill")
    assert read <= 4 * KEYS
    assert incremental_billing.value("select count(*) from recon.uncounted_backfill") == MANY_UNCOUNTED - KEYS


def test_a_chunk_reads_no_hold_that_is_over_however_many_were_never_released(
    incremental_billing: Billing,
) -> None:
    incremental_billing.query(RECORD, KEYS, 2 * KEYS)
    incremental_billing.query(COUNT)
    incremental_billing.query(OVER, MANY_UNCOUNTED)
    run = new_run(incremental_billing.url)
    run.compare()

    with (
        explained(run.database.engine, "mark_held") as plans,
        watched(run.database.engine, "read_control") as control,
    ):
        assert run.repair().repaired == KEYS

    nodes = [node for plan in (*plans, *control) for node in all_nodes(plan)]
    assert control
    assert sum(rows_read(node) for node in nodes if node.get("Relation Name") == "hold") <= KEYS


@contextmanager
def watched(engine: Engine, name: str) -> Iterator[list[Any]]:
    """The plans of one of the product's statements, which is executed as it is, too."""
    plans: list[Any] = []
    beginning = with_name(name, "")

    def before(connection: Any, cursor: Any, text: str, parameters: Any, *rest: Any) -> None:
        if beginning in text:
            asking = connection.connection.cursor()
            asking.execute("explain (analyze, timing off, format json) " + text, parameters)
            plans.append(asking.fetchone()[0][0]["Plan"])

    event.listen(engine, "before_cursor_execute", before)
    yield plans


def rows_read(node: dict[str, Any]) -> int:
    """Rows that a node of a plan has looked at."""
    return (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]


@contextmanager
def explained(engine: Engine, name: str) -> Iterator[list[Any]]:
    """Executes one of the product's statements as EXPLAIN ANALYZE does, and gives the plans."""
    plans: list[Any] = []
    beginning = with_name(name, "")

    def before(_: Any, cursor: Any, text: str, parameters: Any, *rest: Any) -> tuple[str, Any]:
        return ("explain (analyze, timing off, format json) " + text if beginning in text else text), parameters

    def after(_: Any, cursor: Any, text: str, *rest: Any) -> None:
        if text.startswith("explain"):
            plans.append(cursor.fetchone()[0][0]["Plan"])

    event.listen(engine, "before_cursor_execute", before, retval=True)
    event.listen(engine, "after_cursor_execute", after)
    yield plans


def all_nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A node of a plan and those below it."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from all_nodes(below)
