"""Event sums per key, stored in `recon.usage_aggregate`: they show which keys may differ, never what to write.

Invariant: one run at a time writes them (it holds the row of `recon.event_log`, and nobody waits for it). One statement
makes them (`put_sums`: sum these keys from the log and store them) and one adds what is new (`add_to_aggregates`).
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.postgres.planning import sum_by_hash
from recon_pipeline.store.postgres.statements import labelled, statement
from recon_pipeline.store.sums import horizons
from recon_pipeline.store.sums.run import Reconciliation

# Whether anything is stored of an extent.
# Uses: in_months.
_IS_ANYTHING_STORED = labelled(
    "is_anything_stored",
    """
    select exists (select from recon.usage_aggregate where {in_months})
    """,
)
# Marks counters that no stored sum accounts for, as if all their events had left the log: a truncation or a detached
# partition leaves no trace of what was in it.
# Invariant: only if sums of the earlier log are stored, and before they are replaced.
# Index: none; the counters of an extent, and recon.usage_aggregate by primary key.
# Uses: in_months.
_NOTE_COUNTERS_WITHOUT_SUMS = labelled(
    "note_counters_without_sums",
    """
    insert into recon.open_key (
        gateway_name, usage_type, gateway_customer_id, period_start, period_end, reason, units_left
    )
    select gateway_name, usage_type, gateway_customer_id, period_start, period_end, 'changed', usage_count
    from billing_usage_counters as counter
    where {in_months}
        and usage_count > 0
        and recon.fits_index(gateway_customer_id)
        and period_end is not null
        and not exists (
            select
            from recon.usage_aggregate as stored
            where (stored.period_start, stored.gateway_customer_id, stored.period_end)
                = (counter.period_start, counter.gateway_customer_id, counter.period_end)
                and (stored.usage_type, stored.gateway_name) = (counter.usage_type, counter.gateway_name)
        )
    order by gateway_customer_id, period_start, period_end
    on conflict (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
    do update set noted_xid = excluded.noted_xid, units_left = greatest(open_key.units_left, excluded.units_left)
    """,
)
# Forgets what was remembered of the sums of months of which some keys were written, without their totals.
# Invariant: the caller has locked the row of recon.event_log.
# Index: the primary key of recon.usage_month.
# Binds: gateway_name text, partitions text[], usage_type text
_NOTE_SUMMED = labelled(
    "note_months_summed",
    """
    update recon.usage_month
    set summed_xid = pg_current_xact_id(), since_seal = null
    where gateway_name = :gateway_name and usage_type = :usage_type and partition = any(:partitions)
    """,
)
# Removes the horizon: aggregates that were summed from the whole log have none.
# Invariant: the caller has locked the row.
_UNSET_HORIZON = labelled("unset_horizon", "update recon.event_log set horizon = null where horizon is not null")


@dataclass(frozen=True)
class StoredFromLog:
    """The sums of the whole log of an extent.

    Attributes:
        keys: Keys with events.
        events: Events that count.
        keys_changed: Keys written or removed because the log had changed.
    """

    keys: int
    events: int
    keys_changed: int


@dataclass(frozen=True)
class DifferingAggregate:
    """A key whose aggregate differed from the log's sum; values as Postgres prints them."""

    gateway_customer_id: str
    period_start: str
    period_end: str
    aggregated: str
    in_log: str


@dataclass(frozen=True)
class Audit:
    """The result of comparing the stored aggregates with the log.

    Attributes:
        differing_count: Keys whose aggregate differs from the log's sum.
        sample: At most `SAMPLE_ROWS` of them for each metered usage.
        unaudited: Metered usages without aggregates that could be audited.
    """

    differing_count: int
    sample: tuple[DifferingAggregate, ...]
    unaudited: tuple[MeteredUsage, ...]


def store_from_log(connection: Connection, run: Reconciliation, tables: BillingTables) -> StoredFromLog | None:
    """Correct the stored aggregates of the extent from a log that cannot be read in increments.

    Args:
        connection: In a READ COMMITTED transaction of its own that has locked the tables, which the caller commits.
        run: What the run covers.
        tables: How the tables are shaped.

    Returns:
        The sums, or None if another run is writing them.
    """
    if not is_ours_to_write(connection, tables):
        return None
    connection.execute(_UNSET_HORIZON)
    rows = [put_extent(connection, run, tables, usage, horizon=None)[0] for usage in run.extent.scope]
    return StoredFromLog(
        sum(row.keys for row in rows), sum(row.events for row in rows), sum(row.keys_changed for row in rows)
    )


def audit(connection: Connection, run: Reconciliation, tables: BillingTables) -> Audit:
    """Sum the log of the extent again, and correct what differs from it.

    Args:
        connection: In a READ COMMITTED transaction of its own that has locked the tables, which the caller commits.
        run: What the run covers. A metered usage whose months are not built is not audited.
        tables: How the tables are shaped; the log can be read in increments.
    """
    if not is_ours_to_write(connection, tables):
        return Audit(0, (), run.extent.scope)
    position = horizons.position(connection, tables)
    found, sample, unaudited = 0, list[DifferingAggregate](), list[MeteredUsage]()
    for usage in run.extent.scope:
        if horizons.months_of_extent(connection, usage, run.extent, position) is None:
            unaudited.append(usage)
            continue
        rows = put_extent(connection, run, tables, usage, horizon=position.aggregated_below, opens_differing=True)
        found += rows[0].keys_differing
        sample.extend(
            DifferingAggregate(row.gateway_customer_id, row.period_start, row.period_end, row.aggregated, row.in_log)
            for row in rows
            if row.gateway_customer_id is not None
        )
    return Audit(found, tuple(sample), tuple(unaudited))


def is_ours_to_write(connection: Connection, tables: BillingTables) -> bool:
    """Lock the record of the log, which the very first run makes; returns whether no other run has locked it.

    A session that changes aggregates, months or open keys has this lock to the end of its transaction.
    """
    connection.execute(statement("note_event_log"), {"identity": tables.log_identity})
    return connection.execute(statement("lock_event_log")).one_or_none() is not None


def note_what_left(connection: Connection, run: Reconciliation, tables: BillingTables, usage: MeteredUsage) -> None:
    """Before months are built: compare what was stored of them with the whole log, and record what has left it.

    The whole log is compared, since the stored sums may contain events that are above the horizon now, as after a
    restore.
    """
    if connection.execute(_IS_ANYTHING_STORED, run.parameters(usage, tables)).scalar_one():
        put_extent(connection, run, tables, usage, horizon=None)


def note_counters_without_sums(connection: Connection, run: Reconciliation, tables: BillingTables) -> None:
    """Before sums of another or a truncated log: mark counters of which nothing was stored, as if all had left."""
    for usage in run.extent.scope:
        connection.execute(_NOTE_COUNTERS_WITHOUT_SUMS, run.parameters(usage, tables))


def put_extent(
    connection: Connection,
    run: Reconciliation,
    tables: BillingTables,
    usage: MeteredUsage,
    *,
    horizon: int | None,
    opens_differing: bool = False,
    notes_left: bool = True,
) -> Any:
    """Write the log's sums of an extent, below a horizon or of all events, into the aggregates.

    Args:
        connection: In a transaction that holds the row of `recon.event_log`.
        run: What the run covers.
        tables: How the tables are shaped.
        usage: Of which metered usage.
        horizon: Only events of transactions below it; None: all of them.
        opens_differing: Open the keys whose aggregates differed, so that every run covers them until they match.
        notes_left: Record which keys have fewer events or units than was stored, and how many. False if the stored sums
            are not of the same events.

    Returns:
        What differed.
    """
    sum_by_hash(connection)
    which = "in_extent" if horizon is None else "below_horizon"
    asked = {
        "every_key": True,
        "opens_differing": opens_differing,
        "notes_left": notes_left,
        "horizon": None if horizon is None else str(horizon),
    }
    put = statement("put_sums", tables.parts, which_events=which)
    rows = connection.execute(put, run.parameters(usage, tables) | asked).all()
    has_totals = run.extent.customers is None or opens_differing
    months = run.parameters(usage, tables) | {"partitions": [month.key for month in run.extent.months]}
    connection.execute(statement("total_months") if has_totals else _NOTE_SUMMED, months)
    return rows
