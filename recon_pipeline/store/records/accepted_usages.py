"""Metered usages that may be repaired: a person has approved their first run, or every counter matched.

Counters may hold opening balances of an older system, or follow rules that we do not know. Only a person can decide
that, once for each metered usage, and again for earlier months that enter the comparison later.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import Extent, MeteredUsage
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.postgres.statements import labelled
from recon_pipeline.store.records.schedule import months_to_reconcile
from recon_pipeline.store.sums import modes

# The metered usages that are not accepted, or not from this month on, with the month from which they are.
# Binds: first_partition text, gateway_names text[], usage_types text[]
_WAITING_USAGES = labelled(
    "waiting_usages",
    """
    select usage.gateway_name, usage.usage_type, accepted.first_partition
    from unnest(cast(:gateway_names as text[]), cast(:usage_types as text[])) as usage (gateway_name, usage_type)
    left join recon.accepted_usage as accepted using (gateway_name, usage_type)
    where accepted.accepted_at is null or accepted.first_partition > :first_partition
    order by usage.gateway_name, usage.usage_type
    """,
)
# What a run's comparison would have changed of each metered usage in months that nobody has accepted, with the three
# largest differences.
# Invariant: held and doubtful keys are not repaired, so they are not included. Nor are keys whose events left the
# log, and that a person approved one by one.
# Index: the primary key of recon.counter_drift, by run.
# Binds: run_id text
_REPAIRS_TO_ACCEPT = labelled(
    "repairs_to_accept",
    """
    select
        gateway_name, usage_type, min(first_partition) as first_partition,
        count(*) filter (where kind = 'missing') as missing,
        count(*) filter (where kind = 'under') as under,
        count(*) filter (where kind = 'over') as over,
        count(*) filter (where kind = 'orphan') as orphan,
        (array_agg(
            format(
                '%s in %s from %s to %s',
                left(gateway_customer_id, 60), recon.billing_month(period_start),
                coalesce(usage_count::text, 'no counter'), settled_sum
            )
            order by abs(settled_sum - coalesce(usage_count, 0)) desc, ordinal
        ))[1:3] as largest
    from recon.counter_drift
    left join recon.accepted_usage as accepted using (gateway_name, usage_type)
    where counter_drift.run_id = :run_id
        and coalesce(outcome not in ('held', 'doubtful'), true)
        and (
            units_left is null
            or not exists (select from recon.reconciliation_run where run_id = :run_id and approved_reason is not null)
        )
        and (accepted.accepted_at is null or recon.billing_month(period_start) < accepted.first_partition)
    group by gateway_name, usage_type
    """,
)
# Whether a metered usage has a counter in some months.
# Index: of the counters period_start, or their unique key.
# Uses: in_months.
_HAS_COUNTERS = labelled(
    "has_counters",
    """
    select exists (select from billing_usage_counters where {in_months})
    """,
)
# Lets runs repair a metered usage from a month on.
# Invariant: the record keeps who accepted it first.
# Binds: accepted_by text, first_partition text, gateway_name text, reason text, run_id text, usage_type text
_ACCEPT_USAGE = labelled(
    "accept_usage",
    """
    insert into recon.accepted_usage as accepted (
        gateway_name, usage_type, accepted_by, reason, run_id, first_partition
    )
    values (:gateway_name, :usage_type, :accepted_by, :reason, :run_id, :first_partition)
    on conflict (gateway_name, usage_type)
    do update set first_partition = excluded.first_partition
    where accepted.first_partition > excluded.first_partition
    """,
)
# Whether any metered usage was ever accepted.
_IS_ANY_ACCEPTED = labelled("is_any_accepted", "select exists (select from recon.accepted_usage)")


@dataclass(frozen=True)
class Waiting:
    """A metered usage that runs may not repair, or not in all months, before it is accepted.

    Attributes:
        usage: Which.
        before: Only the months before this one wait; None: all months.
    """

    usage: MeteredUsage
    before: BillingMonth | None

    def __str__(self) -> str:
        """For a person."""
        return str(self.usage) if self.before is None else f"{self.usage} before {self.before.key}"

    def part_of(self, extent: Extent) -> Extent | None:
        """The part of an extent that waits, or None."""
        if self.before is None:
            return extent
        months = [month for month in extent.months if month < self.before]
        return replace(extent, last=months[-1]) if months else None


@dataclass(frozen=True)
class RepairsToAccept:
    """The repairs of one metered usage, or of months of it, that wait until it is accepted.

    Attributes:
        waiting: Which.
        by_kind: Keys by kind; all four kinds, also those that are 0.
        largest: The three largest differences, a few words each.
    """

    waiting: Waiting
    by_kind: dict[str, int]
    largest: tuple[str, ...]

    @property
    def keys(self) -> int:
        """All of them."""
        return sum(self.by_kind.values())


def waiting(connection: Connection, scope: Sequence[MeteredUsage], first: BillingMonth) -> tuple[Waiting, ...]:
    """The metered usages of a scope that are not accepted from the first month on; in a transaction."""
    asked = {
        "first_partition": first.key,
        "gateway_names": [usage.gateway_name for usage in scope],
        "usage_types": [usage.usage_type for usage in scope],
    }
    return tuple(_waiting(row) for row in connection.execute(_WAITING_USAGES, asked))


def _waiting(row: Any) -> Waiting:
    before = None if row.first_partition is None else BillingMonth.parse(row.first_partition)
    return Waiting(MeteredUsage(row.gateway_name, row.usage_type), before)


def repairs_to_accept(connection: Connection, run_id: str) -> tuple[RepairsToAccept, ...]:
    """The repairs of a run's comparison in metered usages and months that are not accepted.

    Args:
        connection: In a transaction.
        run_id: Of the run.
    """
    found: list[RepairsToAccept] = []
    for row in connection.execute(_REPAIRS_TO_ACCEPT, {"run_id": run_id}):
        by_kind = {"missing": row.missing, "under": row.under, "over": row.over, "orphan": row.orphan}
        found.append(RepairsToAccept(_waiting(row), by_kind, tuple(row.largest)))
    return tuple(found)


def covers_all(
    connection: Connection,
    tables: BillingTables,
    usage: MeteredUsage,
    extent: Extent,
    *,
    first: BillingMonth,
    current: BillingMonth,
) -> bool:
    """Whether a run covers all of a metered usage: every customer, and every month with anything new.

    Months that an earlier run has found matching, and where nothing has happened since, need not be in it.

    Args:
        connection: In a transaction that reads the tables for a decision.
        tables: How the tables are shaped.
        usage: Which.
        extent: Of the run.
        first: The first known month.
        current: The current one.
    """
    if extent.customers is not None:
        return False
    if extent.first <= first and current <= extent.last:
        return True
    known = Extent((usage,), first, current)
    mode = modes.choose(connection, tables).mode
    months = months_to_reconcile(connection, known, tables, recent_days=0, mode=mode)
    return all(extent.first <= month <= extent.last for month in months)


def has_counters(connection: Connection, usage: MeteredUsage, extent: Extent) -> bool:
    """Whether a usage has counters in the months of an extent; in a transaction that reads for a decision."""
    asked = {
        "gateway_name": usage.gateway_name,
        "usage_type": usage.usage_type,
        "start": extent.start,
        "end": extent.end,
    }
    return connection.execute(_HAS_COUNTERS, asked).scalar_one()


def accept(
    connection: Connection,
    usages: Sequence[MeteredUsage],
    *,
    first: BillingMonth,
    accepted_by: str | None,
    reason: str,
    run_id: str | None,
) -> None:
    """Let runs repair these metered usages from a month on; in a transaction, which the caller commits.

    Args:
        connection: In a transaction.
        usages: Which.
        first: The first known month.
        accepted_by: The person, or None where nothing was to be repaired.
        reason: Why.
        run_id: The run in which it was decided, if any.
    """
    for usage in usages:
        accepted = {"gateway_name": usage.gateway_name, "usage_type": usage.usage_type, "first_partition": first.key}
        by = {"accepted_by": accepted_by, "reason": reason, "run_id": run_id}
        connection.execute(_ACCEPT_USAGE, accepted | by)


def is_any_accepted(connection: Connection) -> bool:
    """Whether a metered usage was ever accepted in this database; in a transaction."""
    return connection.execute(_IS_ANY_ACCEPTED).scalar_one()
