"""Counters that no run compares, because their period begins in no known month: lifetime counters, very old ones.

They stay as they are, and are counted and reported, so that nobody believes that they were compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.log.row_security import see_every_row
from recon_pipeline.store.log.tables import COUNTERS
from recon_pipeline.store.postgres.planning import look_up_by_index, plan_as_usual
from recon_pipeline.store.postgres.statements import labelled
from recon_pipeline.store.sums.run import SAMPLE_ROWS

MOST_BEYOND = 1_000
"""Counters outside of the known months that a tick looks at, on each side."""

# How many counters of a scope have a period that begins outside of the known months.
# Invariant: -infinity is earlier than every month, and infinity later.
# Index: of the counters period_start, or one pass over them.
# Uses: in_scope.
# Binds: first_start timestamptz, last_end timestamptz
_COUNT_COUNTERS_BEYOND_MONTHS = labelled(
    "count_counters_beyond_months",
    """
    select
        count(*) filter (where period_start < :first_start) as earlier_count,
        count(*) filter (where period_start >= :last_end) as later_count
    from billing_usage_counters
    where (period_start < :first_start or period_start >= :last_end)
        and {in_scope}
    """,
)
# A few counters of a scope whose period begins outside of the known months, and how many are among the first :most of
# each side.
# Invariant: the scope is filtered after the limit, so that a tick's cost is bounded whatever the table holds.
# Index: of the counters period_start, in its order.
# Uses: in_scope.
# Binds: first_start timestamptz, last_end timestamptz, most bigint, sample_rows bigint
_SAMPLE_COUNTERS_BEYOND_MONTHS = labelled(
    "sample_counters_beyond_months",
    """
    with beyond as materialized (
        (
            select false as is_later, counter.*
            from billing_usage_counters as counter
            where period_start < :first_start
            order by period_start desc
            limit :most
        )
        union all
        (
            select true, counter.*
            from billing_usage_counters as counter
            where period_start >= :last_end
            order by period_start
            limit :most
        )
    ),
    ours as (
        select *
        from beyond
        where {in_scope}
    )
    select total.*, one.*
    from (
        select
            (select count(*) from ours where not is_later) as earlier_count,
            (select count(*) from ours where is_later) as later_count,
            greatest(count(*) filter (where is_later), count(*) filter (where not is_later)) < :most as is_all
        from beyond
    ) as total
    left join (
        select
            left(gateway_customer_id, 200) as gateway_customer_id, usage_type,
            period_start::text as period_start, period_end::text as period_end, usage_count::text as usage_count
        from ours
        limit :sample_rows
    ) as one on true
    """,
)


@dataclass(frozen=True)
class CounterBeyond:
    """A counter that no run compares; values as Postgres prints them."""

    gateway_customer_id: str
    usage_type: str
    period_start: str
    period_end: str
    usage_count: str


@dataclass(frozen=True)
class CountersBeyond:
    """Counters that no run compares.

    Attributes:
        earlier_count: Whose period begins before the first known month, or at -infinity.
        later_count: After the last one, or at infinity.
        is_exact: The counts are exact; else there are at least so many.
        sample: At most `SAMPLE_ROWS` of them.
    """

    earlier_count: int
    later_count: int
    is_exact: bool
    sample: tuple[CounterBeyond, ...]

    @property
    def counter_count(self) -> int:
        """All of them."""
        return self.earlier_count + self.later_count


def find_counters_beyond(
    connection: Connection, scope: Sequence[MeteredUsage], *, first: BillingMonth, last: BillingMonth, every: bool
) -> CountersBeyond:
    """The counters of a scope that lie in no known month; in a transaction.

    Args:
        connection: In a transaction.
        scope: Whose counters are looked at.
        first: The first known month.
        last: The last one.
        every: Count all of them, by a pass over the table if need be; else those that an index shows first.
    """
    asked: dict[str, Any] = {
        "first_start": first.start,
        "last_end": last.end,
        "gateway_names": [usage.gateway_name for usage in scope],
        "usage_types": [usage.usage_type for usage in scope],
    }
    limits = {"most": MOST_BEYOND, "sample_rows": SAMPLE_ROWS}
    see_every_row(connection, COUNTERS)
    if every:
        plan_as_usual(connection)
    else:
        look_up_by_index(connection)
    rows = connection.execute(_SAMPLE_COUNTERS_BEYOND_MONTHS, asked | limits).mappings().all()
    names = [field.name for field in fields(CounterBeyond)]
    found = [row for row in rows if row["period_start"] is not None]
    sample = tuple(CounterBeyond(**{name: row[name] for name in names}) for row in found)
    counts = connection.execute(_COUNT_COUNTERS_BEYOND_MONTHS, asked).mappings().one() if every else rows[0]
    return CountersBeyond(
        counts["earlier_count"], counts["later_count"], is_exact=every or rows[0]["is_all"], sample=sample
    )


def described(beyond: CountersBeyond, *, first: BillingMonth, last: BillingMonth, is_declared: bool) -> str | None:
    """The counters beyond, for a person, and what to do about them; None if there are none.

    Args:
        beyond: Them.
        first: The first known month.
        last: The last one.
        is_declared: Somebody has said which month is the first.
    """
    parts = (
        (
            beyond.earlier_count,
            f"begin before RECON_START_PERIOD ({first.key})"
            + (", as declared" if is_declared else ": if they are to be compared, set it to their first month"),
        ),
        (beyond.later_count, f"begin after {last.key}: look at how the application chooses their period"),
    )
    counts = "; ".join(f"{count:,} counters {what}" for count, what in parts if count)
    at_least = "" if beyond.is_exact else "At least so many; the nightly audit counts them all. "
    return f"{counts}. {at_least}No run compares them, and they are left as they are." if counts else None
