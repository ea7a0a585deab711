"""The record of archives in `recon.archived_month`, which is only ever added to.

Invariant: a row is written only for a seal that is in force, after its files were read back.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from recon_pipeline.core.errors import NOTHING_ARCHIVED, ReconError
from recon_pipeline.store.postgres.statements import labelled

# The newest archive of a seal.
# Index: recon.archived_month by seal.
# Binds: seal_id bigint
_NEWEST_ARCHIVE = labelled(
    "newest_archive",
    """
    select id, seal_id, archived_at, archived_by, run_id, seen::text as seen, folder, manifest_checksum,
        file_count, row_count, byte_count
    from recon.archived_month
    where seal_id = :seal_id
    order by id desc
    limit 1
    """,
)
# Records an archive; no row if the seal is not in force any more.
# Invariant: nothing is ever changed or deleted.
# Binds: archived_by text, byte_count bigint, file_count bigint, folder text, manifest_checksum text, row_count bigint
# Binds: run_id text, seal_id bigint, seen pg_snapshot
_APPEND_ARCHIVE = labelled(
    "append_archive",
    """
    insert into recon.archived_month (
        seal_id, archived_by, run_id, seen, folder, manifest_checksum, file_count, row_count, byte_count
    )
    select
        :seal_id, :archived_by, :run_id, cast(:seen as pg_snapshot), :folder, :manifest_checksum,
        :file_count, :row_count, :byte_count
    from recon.sealed_month
    where seal_id = :seal_id
    """,
)
# Whether no other session archives this seal; until the transaction ends.
# Binds: seal_id bigint
_BE_ALONE = labelled(
    "archive_alone", "select pg_try_advisory_xact_lock(hashtextextended('recon archive', cast(:seal_id as bigint)))"
)


@dataclass(frozen=True)
class Archive:
    """A row of `recon.archived_month`.

    Attributes:
        seal_id: The seal that it is of.
        archived_at: When.
        archived_by: Who.
        run_id: The run that wrote it, or None for a command.
        seen: The snapshot at which the events were read.
        folder: Where the files are.
        manifest_checksum: SHA-256 of the manifest.
        file_count: Files.
        row_count: Rows in them.
        byte_count: Their size.
    """

    id: int
    seal_id: int
    archived_at: datetime
    archived_by: str
    run_id: str | None
    seen: str
    folder: str
    manifest_checksum: str
    file_count: int
    row_count: int
    byte_count: int


def newest_archive(connection: Connection, seal_id: int) -> Archive | None:
    """The archive of a seal that counts, or None."""
    row = connection.execute(_NEWEST_ARCHIVE, {"seal_id": seal_id}).mappings().one_or_none()
    return None if row is None else Archive(**row)


def require_alone(connection: Connection, seal_id: int) -> None:
    """Refuse to archive a month that another session archives; in a transaction that lasts as long.

    Raises:
        ReconError: Another one does.
    """
    if not connection.execute(_BE_ALONE, {"seal_id": seal_id}).scalar_one():
        raise ReconError(
            "Another session archives this month.",
            changed=NOTHING_ARCHIVED,
            fix="Wait until it has ended; it needs no second archive then.",
        )


def append(
    connection: Connection,
    *,
    seal_id: int,
    archived_by: str,
    run_id: str | None,
    seen: str,
    folder: str,
    manifest_checksum: str,
    file_count: int,
    row_count: int,
    byte_count: int,
) -> bool:
    """Record an archive, as the caller's transaction commits; whether the seal is still in force."""
    row = {
        "seal_id": seal_id,
        "archived_by": archived_by,
        "run_id": run_id,
        "seen": seen,
        "folder": folder,
        "manifest_checksum": manifest_checksum,
        "file_count": file_count,
        "row_count": row_count,
        "byte_count": byte_count,
    }
    return connection.execute(_APPEND_ARCHIVE, row).rowcount == 1
