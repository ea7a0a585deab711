"""The record of backfills in `recon.backfill_batch`, and the rows that were not inserted in `recon.rejected_event`.

Invariant: figures are written in the transaction that inserts the events, so they are true also after a crash.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.store.backfill.tally import Tally
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.postgres.statements import labelled, statement, with_name

COPY_REJECTED_EVENTS = with_name(
    "copy_rejected_events",
    "copy recon.rejected_event (batch_id, ordinal, kind, source, line, reasons, raw_row, stays) from stdin",
)
# Closes the record of a batch, with its error if there is one.
# Binds: batch_id uuid, error text, outcome text
_FINISH_BACKFILL = labelled(
    "finish_backfill",
    """
    update recon.backfill_batch
    set finished_at = clock_timestamp(), outcome = :outcome, error = :error
    where batch_id = cast(:batch_id as uuid)
    """,
)
# Closes the record of a batch whose run ended without closing it; what its chunks inserted is counted already.
# Invariant: a batch that is closed stays as it is.
# Binds: error text, run_id text
_FAIL_OPEN_BATCHES = labelled(
    "fail_open_batches",
    """
    update recon.backfill_batch
    set finished_at = clock_timestamp(), outcome = 'failed', error = :error
    where run_id = :run_id
        and outcome = 'running'
    """,
)
# Opens the record of a batch.
# Invariant: one row for each backfill that read anything, also for a dry run.
# Binds: batch_id uuid, dry_run boolean, mapping jsonb, periods text[], run_id text, sources text[], started_by text
_START_BACKFILL = labelled(
    "start_backfill",
    """
    insert into recon.backfill_batch (batch_id, run_id, sources, mapping, periods, dry_run, started_by)
    values (
        cast(:batch_id as uuid), :run_id, :sources, cast(:mapping as jsonb), cast(:periods as text[]), :dry_run,
        :started_by
    )
    """,
)
# Rows of a batch that were not inserted, in the order in which they were read.
# Binds: batch_id uuid, rows bigint
_READ_REJECTED_EVENTS = labelled(
    "read_rejected_events",
    """
    select kind, source, line, reasons, raw_row, stays
    from recon.rejected_event
    where batch_id = cast(:batch_id as uuid)
    order by ordinal
    limit :rows
    """,
)


@dataclass(frozen=True)
class Batch:
    """One backfill, as recorded.

    Attributes:
        batch_id: Named by the metadata of each of its events.
        outcome: `running`, `done` or `failed`.
        partitions: Billing months of its events that are in the log.
        skipped: Rows that its mapping skips; not among `rows_read`.
        mapping: As given; empty for none.
    """

    batch_id: str
    run_id: str
    sources: list[str]
    periods: list[str] | None
    dry_run: bool
    started_by: str
    started_at: datetime
    finished_at: datetime | None
    outcome: str
    rows_read: int
    inserted: int
    duplicate: int
    conflict: int
    rejected: int
    partitions: list[str]
    error: str | None
    skipped: int
    mapping: Mapping[str, Any]

    @property
    def adds_up(self) -> bool:
        """Whether every row that was read has exactly one outcome."""
        return self.rows_read == self.inserted + self.duplicate + self.conflict + self.rejected

    @property
    def is_clean(self) -> bool:
        """Whether every row is in the log now."""
        return self.outcome == "done" and self.conflict == 0 and self.rejected == 0


@dataclass(frozen=True)
class NotTaken:
    """A row that is not in the log.

    Attributes:
        kind: `rejected`, or `conflict` with the event that stays.
        line: Line in a text file, row number elsewhere.
        raw_row: The row as JSON.
        stays: The event of the same request id, as JSON, or None.
    """

    kind: str
    source: str
    line: int
    reasons: Sequence[str]
    raw_row: str
    stays: Mapping[str, Any] | None = None


def start(
    connection: Connection,
    *,
    batch_id: str,
    run_id: str,
    sources: Sequence[str],
    mapping: Mapping[str, Any],
    periods: Sequence[str] | None,
    dry_run: bool,
    started_by: str,
) -> None:
    """Open the record of a batch."""
    connection.execute(
        _START_BACKFILL,
        {
            "batch_id": batch_id,
            "run_id": run_id,
            "sources": list(sources),
            "mapping": json.dumps(mapping, default=str),
            "periods": list(periods) if periods else None,
            "dry_run": dry_run,
            "started_by": started_by,
        },
    )


def count(connection: Connection, batch_id: str, tally: Tally) -> None:
    """Add the outcomes of some rows."""
    names = ("rows_read", "inserted", "duplicate", "conflict", "rejected", "skipped")
    figures = {name: getattr(tally, name) for name in names}
    connection.execute(
        statement("count_backfill"), {"batch_id": batch_id, "partitions": sorted(tally.partitions), **figures}
    )


def finish(connection: Connection, batch_id: str, *, error: str | None = None) -> None:
    """Close the record of a batch."""
    outcome = "done" if error is None else "failed"
    connection.execute(_FINISH_BACKFILL, {"batch_id": batch_id, "outcome": outcome, "error": error})


def fail_open(connection: Connection, run_id: str, *, error: str) -> None:
    """Close the record of a run's batch if it is still open."""
    connection.execute(_FAIL_OPEN_BATCHES, {"run_id": run_id, "error": error})


def of_run(connection: Connection, run_id: str) -> Batch | None:
    """The batch of a run, or None if it had none."""
    return next(iter(_read(connection, run_id=run_id, rows=1)), None)


def recent(connection: Connection, *, rows: int) -> tuple[Batch, ...]:
    """The latest batches, newest first."""
    return _read(connection, rows=rows)


def named(connection: Connection, batch: str) -> Batch:
    """The batch whose id begins with this text.

    Raises:
        ConfigurationError: None does, or several.
    """
    found = _read(connection, batch=batch.lower(), rows=2)
    if len(found) != 1:
        raise ConfigurationError(
            f"{'No batch' if not found else 'More than one batch'} has an id that begins with {batch!r}.",
            fix="recon backfills lists them.",
        )
    return found[0]


def not_taken(connection: Connection, batch_id: str, *, rows: int) -> tuple[NotTaken, ...]:
    """The first rows of a batch that are not in the log."""
    found = connection.execute(_READ_REJECTED_EVENTS, {"batch_id": batch_id, "rows": rows}).mappings()
    return tuple(NotTaken(**row) for row in found)


def every_not_taken(database: BillingDatabase, batch_id: str) -> Iterator[NotTaken]:
    """All of them, without holding them in memory."""
    with database.transaction() as connection:
        streaming = connection.execution_options(yield_per=1_000)
        found = streaming.execute(_READ_REJECTED_EVENTS, {"batch_id": batch_id, "rows": None}).mappings()
        for row in found:
            yield NotTaken(**row)


def _read(
    connection: Connection, *, rows: int, run_id: str | None = None, batch: str | None = None
) -> tuple[Batch, ...]:
    asked = {"run_id": run_id, "batch": batch, "rows": rows}
    found = connection.execute(statement("read_backfills"), asked).mappings()
    return tuple(Batch(**{one.name: row[one.name] for one in fields(Batch)}) for row in found)
