"""A backfill from its first row to its last: what the log must allow, chunk after chunk, and the record of the batch.

Invariant: whatever ends it, the record of the batch has the outcome of every row that was read.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.core.backfill.mapping import NOTHING_INSERTED
from recon_pipeline.core.backfill.placement import WritableMonths
from recon_pipeline.core.backfill.quantities import QuantityRange
from recon_pipeline.core.backfill.reading import Readings
from recon_pipeline.core.errors import ReconError, StatementFailedError, noting
from recon_pipeline.store.backfill import batches
from recon_pipeline.store.backfill.batches import Batch
from recon_pipeline.store.backfill.classification import Classifier
from recon_pipeline.store.backfill.closing import closing_record
from recon_pipeline.store.backfill.dry_run import DryRun, Preview, PreviewOptions
from recon_pipeline.store.backfill.insertion import Chunk, insert
from recon_pipeline.store.backfill.read_ahead import read_ahead
from recon_pipeline.store.log import ingest_xid
from recon_pipeline.store.log.billing_tables import BillingTables, require_trustworthy
from recon_pipeline.store.log.ingest_xid import Need
from recon_pipeline.store.log.row_security import see_every_row
from recon_pipeline.store.log.tables import COUNTERS, EVENTS, SUBSCRIPTIONS, describe_table
from recon_pipeline.store.postgres.database import BillingDatabase, begin
from recon_pipeline.store.postgres.statements import statement

OnProgress = Callable[[int, float | None], object]
"""Called with the rows read so far and the share of the whole, after each chunk."""


@dataclass(frozen=True)
class BackfillRequest:
    """What is asked of a backfill.

    Attributes:
        batch_id: A new UUID.
        run_id: Of Dagster's run.
        sources: Their names, as they may be shown.
        mapping: As given; empty for none.
        periods: Asked months by key, or None.
        writable: The months that may be written.
        started_by: Who.
        settle_seconds: Longest time an event of the application may be visible before its increment.
    """

    batch_id: str
    run_id: str
    sources: tuple[str, ...]
    mapping: Mapping[str, Any]
    periods: tuple[str, ...] | None
    writable: WritableMonths
    started_by: str
    settle_seconds: int


@dataclass(frozen=True)
class LogShape:
    """What inserting depends on: the tables, and which quantities the log can hold."""

    tables: BillingTables
    quantity_range: QuantityRange


def require_insertable(connection: Connection, *, dry_run: bool, refuses_negative: bool) -> LogShape:
    """Check the log, and refuse one that a backfill cannot work with.

    Raises:
        ReconError: With the cause and its fix.
    """
    tables = require_trustworthy(connection)
    found = connection.execute(statement("backfill_requirements")).one()
    if not found.can_insert and not dry_run:
        raise StatementFailedError(
            f"Role {found.role} may not insert into {found.log}; only a backfill needs that.",
            changed=NOTHING_INSERTED,
            fix=f"grant insert on {found.log} to {found.role};",
        )
    events = describe_table(connection, EVENTS)
    if not dry_run and events is not None and events.row_security_active and "a" not in events.unrestricted_commands:
        raise StatementFailedError(
            f"Row level security keeps role {found.role} from inserting into {found.log}; only a backfill needs that.",
            changed=NOTHING_INSERTED,
            fix=f"create policy recon_pipeline_insert on {found.log} for insert to {found.role} with check (true);",
        )
    if not found.can_stage:
        raise StatementFailedError(
            f"Role {found.role} may not create temporary tables in {found.database}, where rows wait to be inserted.",
            changed=NOTHING_INSERTED,
            fix=f"grant temporary on database {found.database} to {found.role};",
        )
    if found.metadata_type != "jsonb":
        raise ReconError(
            f"{found.log}.metadata is {found.metadata_type or 'missing'}, not jsonb: an event cannot name its batch.",
            changed=NOTHING_INSERTED,
            fix=f"alter table {found.log} add column metadata jsonb default '{{}}';",
        )
    if not tables.refuses_repetitions:
        lacks = ingest_xid.lacking(connection, refuses_repetitions=False)
        unindexed = [lack for lack in lacks if lack.kind is Need.ADVISED]
        if unindexed:
            raise ReconError(
                f"{unindexed[0].lacks}: to look up a row, the whole log would have to be read.",
                changed=NOTHING_INSERTED,
                fix=" ".join(f"{lack.statement};" for lack in unindexed),
            )
    takes = {"takes_zero": found.takes_zero, "takes_negative": not refuses_negative}
    return LogShape(tables, QuantityRange.of(found.quantity_type, **takes))


def run(
    database: BillingDatabase,
    request: BackfillRequest,
    shape: LogShape,
    pieces: Iterator[Readings],
    on_progress: OnProgress,
) -> tuple[Batch, Counter[str]]:
    """Insert all rows.

    Returns:
        What became of them, and how many were inserted in each billing month.

    Raises:
        ReconError: A source or the database failed in the middle; the record of the batch is closed with that error,
            which says which rows are done.
    """
    inserted_of_months: Counter[str] = Counter()

    def take(connection: Connection, chunk: Chunk) -> None:
        identity = shape.tables.event_identity
        tally = insert(connection, request.batch_id, chunk, identity, settle_seconds=request.settle_seconds)
        inserted_of_months.update(tally.inserted_of_months)

    _open(database, request, dry_run=False)
    with closing_record(database, request.batch_id), database.connection() as connection:
        _work_through(connection, _classified(database, request, shape, pieces), take, on_progress)
    return _closed(database, request), inserted_of_months


def preview(
    database: BillingDatabase,
    request: BackfillRequest,
    shape: LogShape,
    pieces: Iterator[Readings],
    on_progress: OnProgress,
    question: PreviewOptions,
) -> tuple[Batch, Preview]:
    """Preview the outcomes of all rows, and insert none.

    Raises:
        ReconError: As `run`.
    """
    _open(database, request, dry_run=True)
    with closing_record(database, request.batch_id), database.transaction() as connection:
        dry_run = DryRun(connection, request.batch_id, shape.tables)

        def take(_: Connection, chunk: Chunk) -> None:
            dry_run.take(chunk)

        _work_through(connection, _classified(database, request, shape, pieces), take, on_progress)
        preview = dry_run.preview(question)
    return _closed(database, request), preview


def _classified(
    database: BillingDatabase, request: BackfillRequest, shape: LogShape, pieces: Iterator[Readings]
) -> Iterator[Chunk]:
    """The rows, classified and ready to be sent; on a connection of its own, since it runs beside the insertion."""
    classifier = Classifier(shape.tables, request.writable)
    first_ordinal = 0
    with database.connection() as connection:
        for piece in pieces:
            with noting(piece.place):
                with begin(connection):
                    see_every_row(connection, EVENTS, COUNTERS, SUBSCRIPTIONS)
                    classified = classifier.classified(connection, piece)
                chunk = Chunk.of(first_ordinal, piece, classified, shape.tables.event_identity)
            yield chunk
            first_ordinal += len(classified)


def _work_through(
    connection: Connection,
    chunks: Iterator[Chunk],
    take: Callable[[Connection, Chunk], object],
    on_progress: OnProgress,
) -> None:
    rows_read = skipped = 0
    with closing(read_ahead(chunks)) as read:
        for chunk in read:
            with noting(chunk.place):
                take(connection, chunk)
                rows_read += len(chunk.readings)
                skipped += chunk.skipped
                on_progress(rows_read, chunk.done)
    if rows_read + skipped == 0:
        raise ReconError(
            "The source holds not one row.", changed=NOTHING_INSERTED, fix="Look at the export, and at its path."
        )


def _open(database: BillingDatabase, request: BackfillRequest, *, dry_run: bool) -> None:
    with database.transaction() as connection:
        batches.start(
            connection,
            batch_id=request.batch_id,
            run_id=request.run_id,
            sources=request.sources,
            mapping=request.mapping,
            periods=request.periods,
            dry_run=dry_run,
            started_by=request.started_by,
        )


def _closed(database: BillingDatabase, request: BackfillRequest) -> Batch:
    with database.transaction() as connection:
        batches.finish(connection, request.batch_id)
        return batches.named(connection, request.batch_id)
