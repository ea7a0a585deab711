"""Holds: customers whose counters are not repaired for a while, in one billing month or in all of them.

Invariant: when `hold` returns, no repair writes these keys any more (see `pause`). A hold ends by the database's clock
or when it is released. A drifted key that a run left alone is an open key: every run compares it again until it
matches. So the first run after the hold repairs it, however long ago it drifted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.store.counters.pause import LOCK_CONTROL, await_chunks
from recon_pipeline.store.log.row_security import see_every_row
from recon_pipeline.store.log.tables import COUNTERS
from recon_pipeline.store.postgres.database import begin
from recon_pipeline.store.postgres.statements import labelled, statement

# Excludes a customer from repairs.
# Invariant: runs in the transaction that has run lock_control, after the one that it replaces was released.
# Binds: gateway_customer_id text, held_by text, partition text, reason text, until timestamptz
_APPEND_HOLD = labelled(
    "append_hold",
    """
    insert into recon.hold (gateway_customer_id, partition, reason, held_by, until)
    values (:gateway_customer_id, :partition, :reason, :held_by, :until)
    """,
)
# The holds that are in force, those that end first first.
# Invariant: a hold ends by this server's clock, or when it is released.
_OPEN_HOLDS = labelled(
    "open_holds",
    """
    select id, gateway_customer_id, partition, reason, held_by, held_at, until
    from recon.hold
    where released_at is null
        and until > clock_timestamp()
    order by until, id
    """,
)

# How many counters some customers have, in some billing months or in all of them.
# Index: the unique key of the counters, if it begins with the customer; else none: a person runs this once.
# Binds: customers text[], every_month boolean, partitions text[]
_COUNT_COUNTERS = labelled(
    "count_held_counters",
    """
    select gateway_customer_id, count(*) as counters
    from billing_usage_counters
    where gateway_customer_id = any(:customers)
        and (
            :every_month
            or recon.billing_month(period_start) = any(:partitions)
        )
    group by gateway_customer_id
    """,
)


@dataclass(frozen=True)
class Hold:
    """A hold that is in force.

    Attributes:
        id: Of its row in `recon.hold`.
        gateway_customer_id: Whose counters are left alone, of every metered usage.
        partition: Only those of this billing month (`YYYY-MM`), or None for all months.
        reason: Why.
        held_by: Who.
        held_at: Since when.
        until: When it ends by itself.
    """

    id: int
    gateway_customer_id: str
    partition: str | None
    reason: str
    held_by: str
    held_at: datetime
    until: datetime


def open_holds(connection: Connection) -> tuple[Hold, ...]:
    """The holds that are in force by the database's clock, those that end first first."""
    return tuple(Hold(**row) for row in connection.execute(_OPEN_HOLDS).mappings())


def count_counters(connection: Connection, customers: Sequence[str], months: Sequence[BillingMonth]) -> dict[str, int]:
    """How many counters each of these customers has, in these months or, if there are none given, in all."""
    see_every_row(connection, COUNTERS)
    parameters = {
        "customers": list(customers),
        "every_month": not months,
        "partitions": [month.key for month in months],
    }
    rows = connection.execute(_COUNT_COUNTERS, parameters)
    return dict.fromkeys(customers, 0) | {row.gateway_customer_id: row.counters for row in rows}


def hold(
    connection: Connection,
    customers: Sequence[str],
    months: Sequence[BillingMonth],
    *,
    reason: str,
    held_by: str,
    until: datetime,
) -> None:
    """Exclude these customers from repairs, and wait until no repair is in progress. Holds on the same are replaced.

    Args:
        connection: Not in a transaction.
        customers: By gateway_customer_id.
        months: Only these, or every month if empty.
        reason: Why.
        held_by: Who.
        until: When the holds end by themselves.
    """
    with begin(connection):
        connection.execute(LOCK_CONTROL)
        for customer in sorted(set(customers)):
            for partition in sorted({month.key for month in months}) or [None]:
                key = {"gateway_customer_id": customer, "partition": partition}
                replaced = {"released_by": held_by, "reason": f"replaced: {reason}", "every_partition": False}
                connection.execute(statement("release_holds"), key | replaced)
                connection.execute(_APPEND_HOLD, key | {"reason": reason, "held_by": held_by, "until": until})
    await_chunks(connection, done="The customers are held")


def release(
    connection: Connection,
    customers: Sequence[str],
    months: Sequence[BillingMonth],
    *,
    reason: str | None,
    released_by: str,
) -> tuple[Hold, ...]:
    """End holds on these customers, of these months or, if there are none given, all of them.

    Returns:
        The holds that this ended.
    """
    ended: list[Hold] = []
    with begin(connection):
        connection.execute(LOCK_CONTROL)
        for customer in sorted(set(customers)):
            for partition in sorted({month.key for month in months}) or [None]:
                parameters = {
                    "gateway_customer_id": customer,
                    "partition": partition,
                    "every_partition": partition is None,
                    "released_by": released_by,
                    "reason": reason,
                }
                ended += [Hold(**row) for row in connection.execute(statement("release_holds"), parameters).mappings()]
    return tuple(ended)


def mark_held(connection: Connection, run_id: str) -> None:
    """Record which drifted keys of a run's comparison are held."""
    connection.execute(statement("mark_held"), {"run_id": run_id, "ordinals": None})
