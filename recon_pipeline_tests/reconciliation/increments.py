"""The incremental mode from outside: sums as a comparison would read them, and acts between the statements of a run."""

from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from sqlalchemy import TextClause, text

from recon_pipeline.store.counters import compare
from recon_pipeline.store.counters.compare import Coverage
from recon_pipeline.store.postgres.statements import statement
from recon_pipeline.store.sums import aggregates, horizons, increments
from recon_pipeline.store.sums.increments import Advance
from recon_pipeline.store.sums.modes import Mode
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.reconciliation.product import SCOPE, Run, new_run
from recon_pipeline_tests.reconciliation.traffic import wait_until

_TOTALS = "event_count, invalid_count, dedupe_count, outside_period_count, negative_count"
_WRONG_TOTALS = f"""
    select partition, key_count, {_TOTALS}
    from recon.usage_month
    except
    select
        month.partition, count(aggregate.period_start),
        {", ".join(f"coalesce(sum(aggregate.{total}), 0)::bigint" for total in _TOTALS.split(", "))}
    from recon.usage_month as month
    left join recon.usage_aggregate as aggregate
        on to_char(aggregate.period_start at time zone 'UTC', 'YYYY-MM') = month.partition
    group by month.partition
"""
_SUMS = """
    with noted as (
        select distinct gateway_customer_id, period_start, period_end
        from recon.invalidated_key
        where gateway_name = :gateway_name and usage_type = :usage_type
    ),
    countable as ({countable})
    select gateway_customer_id, period_start, period_end, sum(quantity) as quantity
    from (
        select gateway_customer_id, period_start, period_end, usage_count as quantity
        from recon.usage_aggregate
        where gateway_name = :gateway_name
            and usage_type = :usage_type
            and event_count > 0
            and (gateway_customer_id, period_start, period_end) not in (select * from noted)
        union all
        select gateway_customer_id, period_start, period_end, quantity
        from countable
        where gateway_name = :gateway_name
            and usage_type = :usage_type
            and (
                ingest_xid >= cast(:horizon as xid8)
                or (gateway_customer_id, period_start, period_end) in (select * from noted)
            )
    ) as part
    where period_start >= :start and period_start < :end
    group by 1, 2, 3
"""
_IS_ANALYZING = """
    select count(*) from pg_stat_activity where backend_type = 'autovacuum worker' and backend_xid is not null
"""
_KNOW_LOG = """
    insert into recon.event_log (identity, first_seen_at) values (%s, '-infinity')
    on conflict (is_known) do update set first_seen_at = excluded.first_seen_at
"""
_TAKE_HORIZON = """
    insert into recon.reconciliation_run (
        run_id, started_at, finished_at, mode, scope, first_partition, last_partition, outcome, horizon
    )
    values (
        gen_random_uuid(), clock_timestamp() - make_interval(secs => %s), clock_timestamp(), 'full', '{}',
        '2025-05', '2025-05', 'clean', pg_snapshot_xmin(pg_current_snapshot())
    )
"""
_LOG_SUMS = """
    select gateway_customer_id, sum(quantity)::bigint
    from billing_usage_events
    where gateway_name = 'stripe' and usage_type = 'remote_commands' and quantity > 0
        and period_start >= '2025-05-01 00:00Z' and period_start < '2025-06-01 00:00Z'
    group by 1
"""


def advance(run: Run, *, before: Callable[[str], object] = lambda _: None) -> Advance:
    """One advance in a transaction of its own; `before` gets the name of each of its statements."""
    acting = False

    def recorded(name: str, *choices: Any, **parts: str) -> TextClause:
        nonlocal acting
        if not acting:
            acting = True
            before(name)
            acting = False
        return statement(name, *choices, **parts)

    with (
        patch.object(aggregates, "statement", recorded),
        patch.object(increments, "statement", recorded),
        patch.object(horizons, "statement", recorded),
        run.decision() as (connection, tables),
    ):
        return increments.advance(connection, run.question, tables)


def settle(billing: Billing, *, seconds: int = 3_600) -> None:
    """Make all that is committed settled, as if a run had taken its horizon longer than RECON_SETTLE_SECONDS ago."""
    wait_until(lambda: billing.value(_IS_ANALYZING) == 0)  # which has a transaction, and would hold the horizon back
    billing.query(_KNOW_LOG, new_run(billing.url).tables().log_identity)
    billing.query(_TAKE_HORIZON, seconds + 1)


def pass_an_hour(billing: Billing) -> None:
    """Make everything that runs have noted so far an hour older."""
    for table, column in (("reconciliation_run", "started_at"), ("event_log", "first_seen_at")):
        billing.query(f"update recon.{table} set {column} = {column} - interval '1 hour'")


def once(name: str, act: Callable[[], object]) -> Callable[[str], None]:
    """Acts before the first statement of that name."""
    waiting = [act]

    def before(statement: str) -> None:
        if statement == name and waiting:
            waiting.pop()()

    return before


def event_sums(run: Run) -> dict[str, int]:
    """Event sums by customer as a comparison reads them: from the aggregates and what they do not hold yet."""
    sums: Counter[str] = Counter()
    for key, total in event_sums_by_key(run).items():
        sums[key[0]] += total
    return dict(sums)


def event_sums_by_key(run: Run) -> dict[tuple[Any, ...], int]:
    """The same by customer, start and end of the period; keys with changed events are taken from the log."""
    with run.decision("REPEATABLE READ") as (connection, tables):
        here = horizons.position(connection, tables)
        assert horizons.aggregated_months(connection, run.question.extent, here), "there are no aggregates to rely on"
        asked = run.question.parameters(SCOPE[0], tables) | {"horizon": str(here.aggregated_below)}
        countable = statement(tables.parts["countable_events"], tables.parts).text
        rows = connection.execute(text(_SUMS.format(countable=countable)), asked).all()
    return {tuple(row[:3]): int(row.quantity) for row in rows}


def aggregated(billing: Billing) -> dict[str, int]:
    """What is stored by customer, of keys with an event that counts."""
    return dict(
        billing.query(
            "select gateway_customer_id, sum(usage_count)::bigint from recon.usage_aggregate "
            "where event_count > 0 group by 1"
        )
    )


def wrong_totals(billing: Billing) -> list[Any]:
    """Months whose totals are not what their keys add up to."""
    return billing.query(_WRONG_TOTALS)


def is_exact(billing: Billing, *, absorbed: bool = False) -> bool:
    """Whether the sums of May are those of the log; where `absorbed`, the stored ones alone are too."""
    sums = log_sums(billing)
    stored = not absorbed or aggregated(billing) == sums
    return stored and event_sums(new_run(billing.url)) == sums and not wrong_totals(billing)


def log_sums(billing: Billing) -> dict[str, int]:
    """Event sums of May by customer, asked of the log; request ids are taken as unique."""
    return dict(billing.query(_LOG_SUMS))


def tick(url: str, **question: Any) -> Run:
    """What a tick does: advance, compare, repair, verify, remember."""
    run = new_run(url, **question)
    run.compare()
    run.repair()
    run.note_verified(run.verify())
    return run


def compared(url: str, *, mode: Mode = Mode.INCREMENTAL, **question: Any) -> tuple[Coverage, set[tuple[Any, ...]]]:
    """What a comparison would look at now, and the drift that it would find; nothing is absorbed."""
    run = new_run(url, **question)
    with run.decision("REPEATABLE READ") as (connection, tables):
        looks = compare.compare(connection, run.question, tables, mode=mode).coverage
        found = compare.sample(connection, run.question.run_id)
    return looks[0], {
        (row.gateway_customer_id, row.period_start, row.kind, row.usage_count, row.event_sum) for row in found
    }
