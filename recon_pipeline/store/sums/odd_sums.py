"""Stored event sums that a person should see: those that no counter can hold, and those with negative quantities."""

from dataclasses import dataclass

from sqlalchemy import Connection

from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.postgres.statements import labelled
from recon_pipeline.store.sums.run import Reconciliation

# The keys of an extent whose event sum no counter can hold: past bigint, or not a whole number.
# Invariant: exactly these keys fail in a repair, each by itself. A month in which there never was one is not read.
# Index: none; the months say whether there is anything to be found.
# Uses: in_extent_following_log.
# Binds: first text, gateway_name text, last text, months_tell boolean, sample_rows bigint, usage_type text
_SAMPLE_OVERSIZED = labelled(
    "oversized_aggregates",
    """
    select gateway_customer_id, period_start::text as period_start, usage_count::text as event_sum,
        count(*) over () as found
    from recon.usage_aggregate
    where (
            not :months_tell
            or exists (
                select from recon.usage_month
                where gateway_name = :gateway_name
                    and usage_type = :usage_type
                    and has_oversized
                    and partition between :first and :last
            )
        )
        and {in_extent_following_log}
        and not recon.fits_bigint(usage_count)
    order by gateway_customer_id, period_start
    limit :sample_rows
    """,
)
# The keys of an extent with events of negative quantity: how many they are, how many such events, and a few of them.
# Index: none; runs only if a month has such events.
# Uses: in_extent_following_log.
# Binds: sample_rows bigint
_SAMPLE_NEGATIVE = labelled(
    "sample_negative_quantities",
    """
    select
        gateway_customer_id, period_start::text as period_start, negative_count, usage_count::text as event_sum,
        count(*) over () as keys, (sum(negative_count) over ())::bigint as events
    from recon.usage_aggregate
    where {in_extent_following_log}
        and negative_count > 0
    order by negative_count desc, gateway_customer_id, period_start
    limit :sample_rows
    """,
)


@dataclass(frozen=True)
class OversizedSum:
    """A key whose event sum no counter can hold; values as Postgres prints them."""

    gateway_customer_id: str
    period_start: str
    event_sum: str


@dataclass(frozen=True)
class NegativeQuantities:
    """A key with events of negative quantity; its sum as Postgres prints it."""

    gateway_customer_id: str
    period_start: str
    negative_count: int
    event_sum: str


def oversized(
    connection: Connection, run: Reconciliation, tables: BillingTables, *, months_tell: bool
) -> tuple[int, tuple[OversizedSum, ...]]:
    """How many stored sums no counter can hold, and at most `SAMPLE_ROWS` of them for each metered usage.

    Args:
        connection: In a transaction.
        run: What the run covers.
        tables: How the tables are shaped.
        months_tell: The aggregates are made in increments, which note in the months whether there are any.
    """
    months = {"first": run.extent.first.key, "last": run.extent.last.key, "months_tell": months_tell}
    found, sums = 0, list[OversizedSum]()
    for usage in run.extent.scope:
        rows = connection.execute(_SAMPLE_OVERSIZED, run.parameters(usage, tables) | months).all()
        found += rows[0].found if rows else 0
        sums.extend(OversizedSum(row.gateway_customer_id, row.period_start, row.event_sum) for row in rows)
    return found, tuple(sums)


def negative_quantities(
    connection: Connection, run: Reconciliation, tables: BillingTables
) -> tuple[int, int, tuple[NegativeQuantities, ...]]:
    """How many events of negative quantity are in the stored sums, of how many keys, and at most `SAMPLE_ROWS` keys.

    Args:
        connection: In a transaction.
        run: What the run covers.
        tables: How the tables are shaped.
    """
    events = keys = 0
    found: list[NegativeQuantities] = []
    for usage in run.extent.scope:
        rows = connection.execute(_SAMPLE_NEGATIVE, run.parameters(usage, tables)).all()
        events += rows[0].events if rows else 0
        keys += rows[0].keys if rows else 0
        found += [NegativeQuantities(*row[:4]) for row in rows]
    return events, keys, tuple(found)
