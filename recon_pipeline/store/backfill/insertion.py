"""Inserts late events into the log, and records the outcome of each.

Invariant: an event whose identity is in the log already stays as it is. Each chunk with its figures and its refused
rows is one short transaction, so a crash leaves whole chunks, and a second backfill inserts nothing twice. If the log
has a unique key on the event identity, this also holds against the application at the same moment. Otherwise a lock
keeps backfills apart; an event that the application commits at that moment can be in the log twice, and is counted
once. An event has no created_at before it is inserted, so that column never distinguishes two of them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row
from sqlalchemy.exc import DBAPIError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from recon_pipeline.core.backfill.columns import Row as SourceRow
from recon_pipeline.core.backfill.columns import Unreadable
from recon_pipeline.core.backfill.reading import Readings
from recon_pipeline.core.backfill.round_trip import row_as_text
from recon_pipeline.core.backfill.rows import Reading
from recon_pipeline.core.event_identity import TIME, EventIdentity
from recon_pipeline.store.backfill import batches
from recon_pipeline.store.backfill.batches import COPY_REJECTED_EVENTS
from recon_pipeline.store.backfill.staging import COPY_STAGED_EVENTS, declare_identity, staged_lines
from recon_pipeline.store.backfill.tally import Tally
from recon_pipeline.store.log.row_security import see_every_row
from recon_pipeline.store.log.tables import COUNTERS, EVENTS, SUBSCRIPTIONS
from recon_pipeline.store.postgres.copy import copy_in, copy_lines_in, storable
from recon_pipeline.store.postgres.database import begin
from recon_pipeline.store.postgres.errors import is_lock_conflict, sqlstate
from recon_pipeline.store.postgres.planning import look_up_each_by_index
from recon_pipeline.store.postgres.statements import labelled, statement

# Has deferred constraints of the log checked where its rows are inserted, so that each row's refusal is known.
# Invariant: ends with the transaction.
_IMMEDIATE_CONSTRAINTS = labelled("immediate_constraints", "set constraints all immediate")
# Lets one chunk of one backfill in at a time.
# Invariant: ends with the transaction. Where the log does not refuse repetitions, it keeps two backfills from
# inserting one request twice; elsewhere it keeps them from waiting for each other's rows.
_LOCK_BACKFILLS = labelled(
    "lock_backfills",
    """
    select pg_advisory_xact_lock(hashtextextended('recon_pipeline backfill', 0))
    """,
)

# The outcomes of the staged events, by billing month.
# After: create_staged_events, declare_identity, classify_staged_events.
_COUNT_STAGED_EVENTS = labelled(
    "count_staged_events",
    """
    select outcome, partition, count(*) as events
    from pg_temp.classified_event
    group by outcome, partition
    """,
)
# The staged events that conflict with the log or that it refused, each with the reason.
# After: create_staged_events, declare_identity, classify_staged_events.
_STAGED_EVENTS_NOT_TAKEN = labelled(
    "staged_events_not_taken",
    """
    select ordinal, outcome, differing, refusal, stays
    from pg_temp.classified_event
    where outcome in ('conflict', 'refused')
    order by ordinal
    """,
)

LOCK_ATTEMPTS = 8

CHUNK_IDLE_TIMEOUT_MS = 4_000
"""An application that inserts the same request id waits for the chunk: no longer than this if our process is frozen."""

_FAULTS_OF_A_ROW = ("22", "23", "54", "P0001")
"""SQLSTATEs that speak of one row: data exception, integrity constraint, program limit, raised by a trigger."""

_OUTCOMES = ("inserted", "duplicate", "conflict", "refused")
_REFUSED_SILENTLY = "the log did not take it: a trigger or another unique key is in the way"


@dataclass(frozen=True)
class Chunk:
    """Rows that are inserted together.

    Attributes:
        first_ordinal: The number of the first row within the batch.
        source: Its name for a person.
        place: Which rows of the source they are, for a person.
        rows: As they were read.
        readings: Of each row; classified.
        done: Share of the whole that is read with them, 0 to 1, or None where that is unknown.
        events: How many of them are events.
        lines: The events, as COPY takes them; made where rows are read, so that nothing but sending is left to do.
        skipped: How many rows beside these the mapping leaves out.
    """

    first_ordinal: int
    source: str
    place: str
    rows: Sequence[SourceRow | Unreadable]
    readings: Sequence[Reading]
    done: float | None
    events: int
    lines: str
    skipped: int = 0

    @classmethod
    def of(cls, first_ordinal: int, piece: Readings, classified: Sequence[Reading], identity: EventIdentity) -> "Chunk":
        """The chunk of these readings."""
        lines = staged_lines(first_ordinal, classified, identity)
        return cls(
            first_ordinal, piece.source, piece.place, piece.rows, classified, piece.done, len(lines), "".join(lines),
            piece.skipped,
        )  # fmt: skip


def insert(
    connection: Connection, batch_id: str, chunk: Chunk, identity: EventIdentity, *, settle_seconds: int
) -> Tally:
    """Insert the events of a chunk, keep the rows that are none, and count both, in one transaction.

    Args:
        connection: Not in a transaction.
        batch_id: Whose record counts them.
        chunk: What to insert.
        identity: What names an event.
        settle_seconds: Longest time an event may be visible before its increment; if it is not 0, the units are noted,
            because no increment of them is to come.

    Raises:
        DBAPIError: A lock was not free in `LOCK_ATTEMPTS` attempts, or an error has no row as its cause; nothing was
            inserted.
    """
    attempts = Retrying(
        retry=retry_if_exception(is_lock_conflict),
        stop=stop_after_attempt(LOCK_ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.1, max=3),
        reraise=True,
    )
    return attempts(_insert_once, connection, batch_id, chunk, identity, settle_seconds)


def _insert_once(
    connection: Connection, batch_id: str, chunk: Chunk, identity: EventIdentity, settle_seconds: int
) -> Tally:
    with begin(connection, idle_timeout_ms=CHUNK_IDLE_TIMEOUT_MS):
        see_every_row(connection, EVENTS, COUNTERS, SUBSCRIPTIONS)
        connection.execute(_LOCK_BACKFILLS)
        connection.execute(_IMMEDIATE_CONSTRAINTS)
        look_up_each_by_index(connection)
        connection.execute(statement("create_staged_events"))
        copy_lines_in(connection, COPY_STAGED_EVENTS, chunk.lines)
        counted = _insert_staged(connection, identity)
        if settle_seconds > 0:
            connection.execute(statement("note_uncounted_backfill"))
        if sum(row.events for row in counted) != chunk.events:
            declare_identity(connection, identity)
            connection.execute(statement("classify_staged_events"))
            counted = connection.execute(_COUNT_STAGED_EVENTS).all()
        tally = _keep_outcomes(connection, batch_id, chunk, counted, identity)
        batches.count(connection, batch_id, tally)
    return tally


def _insert_staged(connection: Connection, identity: EventIdentity) -> Sequence[Row[Any]]:
    """Insert what is new, and count the staged events whose outcome is certain; none of them if one was refused."""
    try:
        with connection.begin_nested():
            return connection.execute(
                statement("insert_staged_events"), {"event_identity": list(identity.columns)}
            ).all()
    except DBAPIError as error:
        if not sqlstate(error).startswith(_FAULTS_OF_A_ROW):
            raise
    declare_identity(connection, identity)
    connection.execute(statement("insert_staged_events_singly"))
    return ()


def _keep_outcomes(
    connection: Connection, batch_id: str, chunk: Chunk, counted: Sequence[Row[Any]], identity: EventIdentity
) -> Tally:
    """Keep the rows that are not in the log, and count all."""
    figures = {outcome: sum(row.events for row in counted if row.outcome == outcome) for outcome in _OUTCOMES}
    refused = refused_rows(batch_id, chunk)
    if figures["conflict"] or figures["refused"]:
        for row in connection.execute(_STAGED_EVENTS_NOT_TAKEN):
            index = int(row.ordinal) - chunk.first_ordinal
            if row.outcome == "conflict":
                reason = _stays_as_it_was(identity, row.differing)
                refused.append(_not_taken(batch_id, chunk, index, "conflict", (reason,), row.stays))
            else:
                reasons = (f"the log refused it: {row.refusal}" if row.refusal else _REFUSED_SILENTLY,)
                refused.append(_not_taken(batch_id, chunk, index, "rejected", reasons))
    if refused:
        copy_in(connection, COPY_REJECTED_EVENTS, refused)
    return Tally(
        inserted=figures["inserted"],
        duplicate=figures["duplicate"],
        conflict=figures["conflict"],
        rejected=len(chunk.readings) - figures["inserted"] - figures["duplicate"] - figures["conflict"],
        partitions=frozenset(row.partition for row in counted if row.outcome in ("inserted", "duplicate")),
        skipped=chunk.skipped,
        inserted_of_months={row.partition: row.events for row in counted if row.outcome == "inserted"},
    )


def _stays_as_it_was(identity: EventIdentity, differing: Sequence[str]) -> str:
    agreeing = [column for column in identity.further if column not in differing]
    also = f" and {', '.join(agreeing)}" if agreeing else ""
    cut = " (one of the two times is the other, cut or rounded)" if TIME in differing and identity.has_times else ""
    return f"the log has this request id{also} with another {', '.join(differing)}{cut}; that event stays as it is"


def refused_rows(batch_id: str, chunk: Chunk) -> list[tuple[Any, ...]]:
    """The rows that are no events, as they are kept."""
    return [
        _not_taken(batch_id, chunk, index, "rejected", reading.reasons)
        for index, reading in enumerate(chunk.readings)
        if reading.reasons
    ]


def _not_taken(
    batch_id: str,
    chunk: Chunk,
    index: int,
    kind: str,
    reasons: Sequence[str],
    stays: Mapping[str, Any] | None = None,
) -> tuple[Any, ...]:
    return (
        batch_id, chunk.first_ordinal + index, kind, storable(chunk.source), chunk.readings[index].line,
        [storable(reason) for reason in reasons], row_as_text(chunk.rows[index]),
        json.dumps(stays, default=str) if stays is not None else None,
    )  # fmt: skip
