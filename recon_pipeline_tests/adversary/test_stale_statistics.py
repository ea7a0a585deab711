"""A run with very many keys reads rows in proportion to them, although statistics know only a small past."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event

from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.adversary.world import APPROVED, NONE_LEFT, World, count_right

pytestmark = pytest.mark.long

FEW, MANY, GROWTH = 200, 800, 6
"""Customers whose counters drift in each way: four times as many may read six times as many rows."""

FLOOR_ROWS = 250_000
"""Some forty rows for each of the many keys, which a change of plan may explain; their square is forty million."""

DRIFT = {
    "lowered": "update billing_usage_counters set usage_count = usage_count + 1 where {of_keys}",
    "raised": "update billing_usage_counters set usage_count = usage_count - 1 where {of_keys}",
    "renamed": "update billing_usage_counters set gateway_customer_id = gateway_customer_id || '_' where {of_keys}",
    "left": "delete from billing_usage_events where {of_keys}",
    "noted": "update billing_usage_events set quantity = quantity + 1 where {of_keys}",
    "twice": "update billing_usage_counters set period_start = period_start + interval '1 ms' where {of_keys}",
    "held": "update billing_usage_counters set usage_count = usage_count + 1 where {of_keys}",
    "came": """
        insert into billing_usage_events
            (gateway_name, gateway_customer_id, usage_type, request_id, period_start, period_end, event_timestamp)
        select
            gateway_name, gateway_customer_id, usage_type, gen_random_uuid()::text,
            period_start, period_end, period_start
        from billing_usage_counters where {of_keys}
    """,
}
STALE = (
    "billing_usage_events", "billing_usage_counters", "recon.counter_drift", "recon.counter_repair", "recon.open_key",
    "recon.usage_aggregate", "recon.usage_month", "recon.invalidated_key", "recon.uncounted_backfill", "recon.hold",
    "recon.reconciliation_run",
)  # fmt: skip
OTHER = (
    """
    insert into recon.usage_aggregate
        (gateway_name, usage_type, gateway_customer_id, period_start, period_end, event_count, usage_count)
    select 'other', 'other', n::text, '2025-04-01 00:00Z', '2025-05-01 00:00Z', 1, 1 from generate_series(1, 1000) as n
    """,
    """
    insert into recon.open_key (gateway_name, usage_type, gateway_customer_id, period_start, period_end, reason)
    select 'other', 'other', n::text, '2025-04-01 00:00Z', '2025-05-01 00:00Z', 'drifted'
    from generate_series(1, 1000) as n
    """,
    """
    insert into recon.hold (gateway_customer_id, reason, held_by, until)
    select 'other ' || n, 'as a test', 'a test', now() + interval '1 day' from generate_series(1, 100) as n
    """,
    """
    insert into billing_usage_counters
        (gateway_name, gateway_customer_id, usage_type, period_start, period_end, usage_count)
    select 'other', n::text, 'other', '2025-04-01 00:00Z', '2025-05-01 00:00Z', 1 from generate_series(1, 1000) as n
    """,
    """
    insert into billing_usage_events
        (gateway_name, gateway_customer_id, usage_type, request_id, quantity, period_start, period_end, event_timestamp)
    select 'other', n::text, 'other', n::text, 1, '2025-04-01 00:00Z', '2025-05-01 00:00Z', '2025-04-02 00:00Z'
    from generate_series(1, 1000) as n
    """,
)
"""What statistics know of: another gateway's usage in another month."""


@pytest.mark.timeout(240)
def test_statistics_of_a_small_past_make_no_statement_read_rows_by_the_square(incremental: World) -> None:
    world = incremental
    begin_past(world)
    rows: dict[int, Counter[str]] = {}
    for keys in (FEW, MANY):
        for kind in DRIFT:
            fill(world, keys, prefix=f"{kind}_{keys}_")
        rows[keys] = Counter()
        world.run(approve=APPROVED, database=explained(world, rows[keys]))
        world.run(approve=APPROVED)
        world.billing.query(
            "insert into recon.hold (gateway_customer_id, reason, held_by, until)"
            " select gateway_customer_id, 'as a test', 'a test', now() + interval '1 day'"
            f" from billing_usage_counters where gateway_customer_id like 'held_{keys}_%'"
        )
        for kind, drift in DRIFT.items():
            world.billing.query(drift.format(of_keys=f"gateway_customer_id like '{kind}_{keys}_%'"))
        database = explained(world, rows[keys])
        found = world.run(budgets=NONE_LEFT, database=database)
        approved = world.run(budgets=NONE_LEFT, approve=APPROVED, database=database)
        assert (found.outcome, approved.outcome) == ("not_clean", "not_clean"), "a period stays written in two ways"
        assert "events_stay_in_the_log" in set(found.failed_checks) - set(approved.failed_checks)
        database.close()
    by_the_square = {
        name: (rows[FEW][name], many)
        for name, many in rows[MANY].items()
        if many > GROWTH * max(rows[FEW][name], FLOOR_ROWS / GROWTH)
    }
    assert by_the_square == {}


def begin_past(world: World) -> None:
    """Have the server look at the tables after small runs and beside another usage, and never again."""
    fill(world, 100, prefix="few_")
    world.settle_in()
    for _ in range(2):
        world.billing.query("update billing_usage_counters set usage_count = usage_count + 1")
        assert world.run(approve=APPROVED).outcome == "clean"
    for statement in OTHER:
        world.billing.query(statement)
    world.billing.query("vacuum analyze")
    for table in STALE:
        world.billing.query(f"alter table {table} set (autovacuum_enabled = off)")


def fill(world: World, keys: int, *, prefix: str) -> None:
    world.billing.query(
        """
        insert into billing_usage_events
            (gateway_name, gateway_customer_id, usage_type, request_id, quantity, period_start, period_end,
            event_timestamp)
        select 'stripe', %s || lpad(key::text, 7, '0'), 'remote_commands', gen_random_uuid()::text, 1,
            '2025-05-01 00:00Z', '2025-06-01 00:00Z', '2025-05-02 00:00Z'
        from generate_series(1, %s) as key, generate_series(1, 2)
        """,
        prefix, keys,
    )  # fmt: skip
    count_right(world.billing)


def explained(world: World, rows: "Counter[str]") -> BillingDatabase:
    """A database that counts, before each statement runs, how many rows pass through its plan, by its name."""
    database = BillingDatabase(world.billing.url, keeps_connection=True)

    def before(_connection: object, cursor: Any, statement: str, parameters: Any, *_: object) -> None:
        named = re.match(r"/\* recon:(\w+) \*/\s*(?:--[^\n]*\n\s*)*(with|select|insert|update|delete)\b", statement)
        if not named:
            return
        cursor.execute("savepoint explained")
        cursor.execute("explain (analyze, timing off, format json) " + statement, parameters)
        plan = cursor.fetchone()[0][0]["Plan"]
        passed = sum(rows_of(node) for node in nodes(plan))
        rows[named[1]] += passed
        cursor.execute("rollback to savepoint explained")
        cursor.execute("release savepoint explained")

    event.listen(database.engine, "before_cursor_execute", before)
    return database


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def rows_of(node: dict[str, Any]) -> int:
    """How many rows a node of a plan has looked at, all its loops together."""
    removed = sum(node.get(f"Rows Removed by {by}", 0) for by in ("Filter", "Join Filter", "Index Recheck"))
    return round(node["Actual Loops"] * (node["Actual Rows"] + removed))
