"""Archives a sealed month: its events as files, which were read back before that is recorded. Knows no Dagster.

Invariant: an archive is recorded only if what its files hold at the target adds up to the seal, for each key, in sum,
number and checksum. A month is read at one snapshot; no lock and no transaction is held while files are read back.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

from sqlalchemy import Connection

from recon_pipeline.assets.archive_refusals import archived_before, differs, stays_as_written
from recon_pipeline.core.errors import NOTHING_ARCHIVED, ReconError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import Extent, MeteredUsage
from recon_pipeline.lake.archive_files import (
    fetched,
    new_folder,
    read_manifest,
    remove,
    with_decimals,
    write_files,
    write_manifest,
)
from recon_pipeline.lake.archive_sums import KeyOfArchive, archive_sums
from recon_pipeline.lake.folders import Folder
from recon_pipeline.lake.manifest import Manifest
from recon_pipeline.lake.session import require_engine
from recon_pipeline.settings import Settings
from recon_pipeline.store.archive import records
from recon_pipeline.store.archive.export import month_to_archive, sealed_sums
from recon_pipeline.store.archive.leaving import statements_for_owner
from recon_pipeline.store.archive.records import Archive, newest_archive
from recon_pipeline.store.counters.seal_records import RecordedSeal, read_seals
from recon_pipeline.store.log.decision import decision
from recon_pipeline.store.log.sealed_months import read_sealed_months
from recon_pipeline.store.postgres.database import STATEMENT_TIMEOUT_MS, begin
from recon_pipeline.store.sums.run import Reconciliation


@dataclass(frozen=True)
class ArchivedMonth:
    """A month of a metered usage that was archived.

    Attributes:
        seal: The seal that it is of.
        archive: Its record.
    """

    seal: RecordedSeal
    archive: Archive


@dataclass(frozen=True)
class Archived:
    """What was archived of a month.

    Attributes:
        months: One of each metered usage.
        statements: By which the owner of the log may let the events leave it.
    """

    months: tuple[ArchivedMonth, ...]
    statements: tuple[str, ...]


@dataclass(frozen=True)
class _Written:
    folder: Folder
    manifest: Manifest
    checksum: str
    tables: tuple[int, ...]


def archive_month(
    connection: Connection,
    settings: Settings,
    month: BillingMonth,
    to: str,
    *,
    archived_by: str,
    run_id: str | None = None,
) -> Archived:
    """Write a sealed month of every metered usage as files, read them back, and record that.

    Args:
        connection: Not in a transaction.
        settings: With the scope.
        month: Which.
        to: A folder, or a URL that fsspec opens.
        archived_by: Who.
        run_id: The run of Dagster's that does it, or None.

    Raises:
        ReconError: The month is not sealed, the log is not what was sealed, a package is missing, or the target cannot
            be written or read.
    """
    require_engine()
    target = Folder.of(to)
    with begin(connection):
        seals = sealed_of_month(connection, settings.scope, month)
    done: list[ArchivedMonth] = []
    tables: list[tuple[MeteredUsage, int]] = []
    for seal in seals:
        written = _written_and_read_back(connection, settings, seal, target)
        done.append(_record(connection, seal, written, archived_by=archived_by, run_id=run_id))
        tables += [(seal.usage, relation) for relation in written.tables]
    with begin(connection, statement_timeout_ms=STATEMENT_TIMEOUT_MS):
        # The first snapshot and the first seal: what is in all archives.
        statements = statements_for_owner(
            connection,
            tables,
            month,
            seen=done[0].archive.seen,
            covers_until=min(seal.seal.acted_at for seal in seals),
        )
    return Archived(tuple(done), statements)


def sealed_of_month(
    connection: Connection, scope: Sequence[MeteredUsage], month: BillingMonth
) -> tuple[RecordedSeal, ...]:
    """The seals in force of a month whose events were in the log; in a transaction.

    Raises:
        ReconError: Of a metered usage there is none, or all are of counts in the lake.
    """
    in_force = {one.usage: one.seal_id for one in read_sealed_months(connection) if one.month == month}
    without = [usage for usage in scope if usage not in in_force]
    if without:
        raise ReconError(
            f"{month.key} of {without[0]} is not sealed, so it cannot be archived.",
            changed=NOTHING_ARCHIVED,
            fix=f"recon seal --period {month.key}, then archive it again.",
        )
    seals = {one.id: one for one in read_seals(connection)}
    of_log = tuple(seals[in_force[usage]] for usage in scope if seals[in_force[usage]].seal.lake_source is None)
    if not of_log:
        what = f"{month.key} was sealed as it was counted in the lake: the log has none of its events to archive."
        raise ReconError(what, changed=NOTHING_ARCHIVED, fix="Nothing: its events are in the lake.")
    return of_log


def compared_with_seal(
    connection: Connection, settings: Settings, seal: RecordedSeal, folder: Folder, manifest: Manifest
) -> tuple[int, list[KeyOfArchive]]:
    """How many keys of the files are not what was sealed, and the first of them; no transaction is open meanwhile.

    Raises:
        ReconError: A file is missing or was changed, or cannot be read.
    """
    with archive_sums(manifest.quantity_scale, settings.event_identity.columns) as sums:
        sums.add_files(fetched(folder, manifest))
        with sealed_sums(connection, seal.id) as sealed:
            return sums.differing(sealed, most=1)


def verify_archives(connection: Connection, settings: Settings, seal_ids: Sequence[int]) -> ReconError | None:
    """Compute archives again; what is wrong with the first that is not what was sealed, or None.

    Args:
        connection: Not in a transaction.
        settings: With what names an event.
        seal_ids: Of the seals, which are archived.
    """
    with begin(connection):
        seals = {one.id: one for one in read_seals(connection)}
        archives = [newest_archive(connection, seal_id) for seal_id in seal_ids]
    for archive in filter(None, archives):
        try:
            folder = Folder.of(archive.folder)
            manifest = read_manifest(folder, archive.manifest_checksum)
            count, keys = compared_with_seal(connection, settings, seals[archive.seal_id], folder, manifest)
        except ReconError as error:
            return error
        if count:
            return differs(seals[archive.seal_id], count, keys[0])
    return None


def _written_and_read_back(connection: Connection, settings: Settings, seal: RecordedSeal, target: Folder) -> _Written:
    """Write the files of a month, then their manifest; they are deleted unless all is there and is what was sealed."""
    folder = new_folder(target, seal.seal.partition, seal.seal.gateway_name, seal.seal.usage_type, seal.id)
    try:
        manifest, tables = _write(connection, settings, seal, folder)
        with stays_as_written():
            count, keys = compared_with_seal(connection, settings, seal, folder, manifest)
        if count:
            raise archived_before(connection, seal) or differs(seal, count, keys[0])
        return _Written(folder, manifest, write_manifest(folder, manifest), tables)
    except BaseException:
        with suppress(ReconError):  # a store that fails keeps them: without a manifest they are no archive
            remove(folder)
        raise


def _write(
    connection: Connection, settings: Settings, seal: RecordedSeal, folder: Folder
) -> tuple[Manifest, tuple[int, ...]]:
    month = BillingMonth.parse(seal.seal.partition)
    question = Reconciliation.of(settings, str(uuid4()), Extent((seal.usage,), month, month))
    with (
        decision(connection, "REPEATABLE READ", idle_timeout_ms=STATEMENT_TIMEOUT_MS) as tables,
        month_to_archive(connection, question, tables, seal.usage, covers_until=seal.seal.acted_at) as read,
    ):
        records.require_alone(connection, seal.id)
        files = write_files(folder, with_decimals(read.schema, read.batches, read.decimals))
    (scale,) = (column.scale or 0 for column in read.columns if column.name == "quantity")
    manifest = Manifest(
        month.key,
        seal.usage.gateway_name,
        seal.usage.usage_type,
        seal.id,
        seal.seal.checksum,
        read.seen,
        scale,
        sum(one.row_count for one in files),
        sum(one.byte_count for one in files),
        files,
    )
    return manifest, read.tables


def _record(
    connection: Connection, seal: RecordedSeal, written: _Written, *, archived_by: str, run_id: str | None
) -> ArchivedMonth:
    with begin(connection):
        is_in_force = records.append(
            connection,
            seal_id=seal.id,
            archived_by=archived_by,
            run_id=run_id,
            seen=written.manifest.seen,
            folder=written.folder.url,
            manifest_checksum=written.checksum,
            file_count=len(written.manifest.files),
            row_count=written.manifest.row_count,
            byte_count=written.manifest.byte_count,
        )
        archive = newest_archive(connection, seal.id)
    if not is_in_force or archive is None:
        remove(written.folder)
        raise ReconError(
            f"{seal.of_what} was reopened while it was archived.",
            changed=NOTHING_ARCHIVED,
            fix=f"recon seal --period {seal.seal.partition}, then archive it again.",
        )
    return ArchivedMonth(seal, archive)
