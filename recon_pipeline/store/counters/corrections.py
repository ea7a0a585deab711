"""What came after a month was sealed: late, changed and removed events, which change no counter.

Invariant: sums are of the log's own rows at one snapshot, beside the sealed sum of each key; those of which nothing
differs, the events not either, are left out. Which events came later is known as far as the log shows it: of an event
that was removed it has no row.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import Connection

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import Extent
from recon_pipeline.store.counters.lake_seals import since_count
from recon_pipeline.store.counters.seal_records import RecordedSeal, read_seals
from recon_pipeline.store.counters.sealing import NotSealedError
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.postgres.planning import sum_by_hash
from recon_pipeline.store.postgres.statements import labelled, statement
from recon_pipeline.store.sums.run import Reconciliation

# The events of some keys of a month that were inserted, or whose row was written, after a snapshot; values as Postgres
# prints them.
# Invariant: the column ingest_xid need not be there.
# Index: billing_usage_events by gateway_customer_id.
# Binds: customers_given text[], gateway_name text, period_ends_given text[], period_starts_given text[]
# Binds: seen pg_snapshot, usage_type text
_EVENTS_SINCE = labelled(
    "events_since_seal",
    """
    select
        gateway_customer_id, period_start::text as period_start, period_end::text as period_end,
        request_id::text as request_id, quantity::text as quantity, event_timestamp::text as event_timestamp,
        created_at::text as created_at,
        case
            when is_sealed is null then 'came later or changed'
            when is_sealed then 'changed or rewritten'
            else 'came later'
        end as what
    from (
        select
            *,
            pg_visible_in_snapshot((to_jsonb(event) ->> 'ingest_xid')::xid8, cast(:seen as pg_snapshot)) as is_sealed,
            not recon.is_settled(event.xmin, pg_snapshot_xmin(cast(:seen as pg_snapshot))) as is_written_since
        from billing_usage_events as event
        where gateway_customer_id = any(cast(:customers_given as text[]))
            and gateway_name = :gateway_name
            and usage_type = :usage_type
            and case
                when (gateway_customer_id, period_start, period_end) in (
                    select gateway_customer_id, period_start::timestamptz, period_end::timestamptz
                    from unnest(
                        cast(:customers_given as text[]),
                        cast(:period_starts_given as text[]),
                        cast(:period_ends_given as text[])
                    ) as key (gateway_customer_id, period_start, period_end)
                )
                    then true
            end
    ) as event
    where quantity is not null
        and (is_sealed is false or is_written_since)
    order by gateway_customer_id, period_start, created_at, request_id
    """,
)


@dataclass(frozen=True)
class LaterEvent:
    """An event that came, or was changed, after its month was sealed; values as Postgres prints them.

    Attributes:
        what: `came later`, `changed or rewritten` (by a migration of the log, too), or `came later or changed` where
            events do not carry the transaction that inserted them. It may repeat an event, and then it does not count.
    """

    request_id: str | None
    quantity: str | None
    event_timestamp: str | None
    created_at: str | None
    what: str


@dataclass(frozen=True)
class Correction:
    """A key of a sealed month whose events are not those that were sealed; sums as Postgres prints them.

    Attributes:
        difference: What the events add up to now, without the sealed sum: for a credit note or the next invoice.
        events: Those that came or were changed since.
    """

    partition: str
    gateway_name: str
    usage_type: str
    gateway_customer_id: str
    period_start: str
    period_end: str
    sealed_sum: str
    sum_now: str
    difference: str
    sealed_events: int
    events_now: int
    events: tuple[LaterEvent, ...]


def corrections(
    connection: Connection,
    run: Reconciliation,
    tables: BillingTables,
    months: Sequence[BillingMonth],
    *,
    beside_archive: Callable[[Reconciliation, RecordedSeal], list[Correction]],
) -> tuple[Correction, ...]:
    """The keys of sealed months whose events are not those that were sealed, by month and customer.

    Args:
        connection: In a REPEATABLE READ transaction that has locked the tables.
        run: Whose scope is looked at.
        tables: How the tables are shaped, with the sealed months.
        months: Which.
        beside_archive: What there is to correct of an archived month of which the log has other events than were
            sealed: it may have any part of them.

    Raises:
        NotSealedError: One of them is not sealed.
    """
    seals = {one.id: one for one in read_seals(connection)}
    found: list[Correction] = []
    for month in months:
        asked = replace(run, extent=Extent(run.extent.scope, month, month))
        sealed = [one for usage in run.extent.scope for one in tables.sealed_within(usage, asked.extent)]
        if not sealed:
            raise NotSealedError(
                f"{month.key} is not sealed, so it has no corrections: its counters follow the log.",
                fix=f"recon status says which months are sealed; recon seal --period {month.key} seals it.",
            )
        for one in sealed:
            if one.is_of_lake:
                found += _as_corrections(seals[one.seal_id], since_count(connection, one), {})
                continue
            rows = keys_differing(connection, asked, tables, seals[one.seal_id], which_events="in_extent")
            if rows and one.archived_seen is not None:
                found += beside_archive(replace(asked, extent=Extent((one.usage,), month, month)), seals[one.seal_id])
            else:
                found += _of_log(connection, seals[one.seal_id], rows)
    return tuple(found)


def keys_differing(
    connection: Connection,
    run: Reconciliation,
    tables: BillingTables,
    recorded: RecordedSeal,
    *,
    which_events: Literal["in_extent", "in_extent_when_sealed"],
) -> Sequence[Any]:
    """The keys of which the log has other events than were sealed, as `sum_events` returns them.

    Args:
        connection: In a REPEATABLE READ transaction that has locked the tables.
        run: Whose extent is the month of the seal.
        tables: How the tables are shaped.
        recorded: The seal.
        which_events: All of the month, or those that were there when it was sealed.
    """
    sum_by_hash(connection)
    asked = run.parameters(recorded.usage, tables) | {
        "settle_seconds": 0,
        "settled_below": None,
        "kept_as": None,
        "compared_with": recorded.id,
        "covers_until": recorded.seal.acted_at,
        "with_checksums": True,
        "seen": recorded.seal.seen,
    }
    return connection.execute(statement("sum_events", tables.parts, which_events=which_events), asked).all()


def _of_log(connection: Connection, recorded: RecordedSeal, rows: Sequence[Any]) -> list[Correction]:
    usage = recorded.usage
    asked = {
        "gateway_name": usage.gateway_name,
        "usage_type": usage.usage_type,
        "seen": recorded.seal.seen,
        "customers_given": [row.gateway_customer_id for row in rows],
        "period_starts_given": [row.period_start for row in rows],
        "period_ends_given": [row.period_end for row in rows],
    }
    events = defaultdict[tuple[str, str, str], list[LaterEvent]](list)
    for row in connection.execute(_EVENTS_SINCE, asked) if rows else ():
        events[row.gateway_customer_id, row.period_start, row.period_end].append(
            LaterEvent(row.request_id, row.quantity, row.event_timestamp, row.created_at, row.what)
        )
    return _as_corrections(recorded, rows, events)


def _as_corrections(
    recorded: RecordedSeal, rows: Sequence[Any], events: Mapping[tuple[str, str, str], list[LaterEvent]]
) -> list[Correction]:
    usage = recorded.usage
    return [
        Correction(
            recorded.seal.partition, usage.gateway_name, usage.usage_type,
            row.gateway_customer_id, row.period_start, row.period_end,
            row.sealed_sum, row.sum_now, row.difference, row.sealed_events, row.events_now,
            tuple(events.get((row.gateway_customer_id, row.period_start, row.period_end), ())),
        )
        for row in rows
    ]  # fmt: skip
