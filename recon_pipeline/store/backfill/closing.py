"""Closes the record of a batch that fails, whatever the error is.

Invariant: the record says that the batch failed, why and at which rows; and the error is raised.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager

from recon_pipeline.core.backfill.mapping import NOTHING_INSERTED
from recon_pipeline.core.errors import ReconError
from recon_pipeline.store.backfill import batches
from recon_pipeline.store.backfill.batches import Batch
from recon_pipeline.store.postgres.copy import storable
from recon_pipeline.store.postgres.database import BillingDatabase


@contextmanager
def closing_record(database: BillingDatabase, batch_id: str) -> Generator[None]:
    """Close the record of a batch if the block fails, and add the outcomes of earlier rows to an error for people.

    If the record cannot be closed because the database is unreachable, the error is raised as it is. The sensor of
    failed runs then closes the record.
    """
    try:
        yield
    except ReconError as error:
        what = f"{error.what}{_place(error)}"
        batch = _failed(database, batch_id, what, error)
        changed = error.changed if batch is None else _what_is_done(batch)
        raise type(error)(what, changed=changed, fix=error.fix) from error
    except BaseException as error:
        said = str(error).strip().splitlines()
        cause = ": ".join((type(error).__name__, *said[:1]))
        _failed(database, batch_id, f"{cause}{_place(error)}", error)
        raise


def _failed(database: BillingDatabase, batch_id: str, what: str, error: BaseException) -> Batch | None:
    try:
        with database.transaction() as connection:
            batches.finish(connection, batch_id, error=storable(what))
            return batches.named(connection, batch_id)
    except ReconError as second:
        error.add_note(f"The record of batch {batch_id} is still running: {second.what}")
        return None


def _place(error: BaseException) -> str:
    """Which rows were worked on, if the error or what caused it says so."""
    place = next(_notes(error), None)
    return f" (at {place})" if place else ""


def _notes(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield from getattr(error, "__notes__", ())
        error = error.__cause__


def _what_is_done(batch: Batch) -> str:
    if batch.dry_run or batch.rows_read == 0:
        return NOTHING_INSERTED
    return (
        f"Of {batch.rows_read:,} rows that were read before, {batch.inserted:,} were inserted, {batch.duplicate:,} "
        f"were there already, {batch.conflict:,} are in conflict and {batch.rejected:,} were rejected "
        f"(batch {batch.batch_id}). No counter was changed; running this again inserts nothing twice, "
        "and the next tick counts what is inserted."
    )
