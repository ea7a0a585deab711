"""What a repair does while it holds counters: the application waits for it, whatever statistics the planner has."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event

from recon_pipeline.store.postgres.statements import source
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.reconciliation.product import new_run

KEYS, NEWS = 400, 20_000
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


@pytest.fixture(params=["analyze", "select"], ids=["analyzed before", "never analyzed"])
def busy(incremental_billing: Billing, request: pytest.FixtureRequest) -> Iterator[Billing]:
    """400 wrong counters, 20,000 events beyond a horizon that an old transaction holds; statistics are of before."""
    for table in ("billing_usage_events", "billing_usage_counters"):
        incremental_billing.query(f"alter table {table} set (autovacuum_enabled = off)")
    incremental_billing.query(RECORD, KEYS, 5 * KEYS)
    incremental_billing.query(COUNT)
    new_run(incremental_billing.url).compare()
    incremental_billing.query(request.param)
    with incremental_billing.session() as old:
        old.value("select pg_current_xact_id()::text")
        incremental_billing.query(RECORD, KEYS, NEWS)
        yield incremental_billing


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


@contextmanager
def explained(engine: Engine, name: str) -> Iterator[list[Any]]:
    """Executes one of the product's statements as EXPLAIN ANALYZE does, and gives the plans."""
    plans: list[Any] = []
    beginning = source(name)[:200]

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
