"""Why a month is not archived: its events are not what was sealed. Says what to do; knows no Dagster."""

from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy import Connection

from recon_pipeline.core.errors import NOTHING_ARCHIVED, ReconError, one_line
from recon_pipeline.lake.archive_sums import KeyOfArchive
from recon_pipeline.lake.folders import LostFileError
from recon_pipeline.store.archive.records import newest_archive
from recon_pipeline.store.counters.seal_records import RecordedSeal
from recon_pipeline.store.postgres.database import begin


def archived_before(connection: Connection, seal: RecordedSeal) -> ReconError | None:
    """What to say of a month that was archived before, else None; on a connection that is not in a transaction."""
    with begin(connection):
        archive = newest_archive(connection, seal.id)
    return archive and ReconError(
        f"{seal.of_what} is archived already, in {archive.folder}, and the log no longer has exactly its events.",
        changed=NOTHING_ARCHIVED,
        fix="Nothing: recon verify-seals proves that archive, and recon corrections says what came since. For a second "
        "one copy the folder, or let the log have the events again and archive the month then.",
    )


@contextmanager
def stays_as_written() -> Generator[None]:
    """Report a file that is missing or changed when it is read back, before the archive is recorded."""
    try:
        yield
    except LostFileError as error:
        raise ReconError(
            f"What was written did not stay: {error.what}",
            changed=NOTHING_ARCHIVED,
            fix="Find out what deletes or changes files there, then archive the month again; the log has its events.",
        ) from error


def differs(seal: RecordedSeal, count: int, first: KeyOfArchive) -> ReconError:
    """What to say of events that are not those that were sealed: how many keys, and the first of them."""
    month = seal.seal.partition
    return ReconError(
        f"The events of {seal.of_what} are not what was sealed: {count:,} keys differ, the first of customer "
        f"{one_line(first.gateway_customer_id)} ({first.sealed_events:,} events of {first.sealed_sum} units were "
        f"sealed, {first.events_now:,} of {first.sum_now} are there).",
        changed=NOTHING_ARCHIVED,
        fix=f"recon corrections --period {month} shows the keys. Let the log have the sealed events again, or accept "
        f'what came: recon reopen --period {month} --reason "...", recon reconcile --period {month}, '
        f"recon seal --period {month}; then archive it again.",
    )
