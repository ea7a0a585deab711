"""What `recon archive` does, and how it is shown."""

from dataclasses import asdict
from typing import Any

from recon_pipeline.assets.archiving import Archived, archive_month
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.billing import billing_database
from recon_pipeline.faces.console import err, out
from recon_pipeline.faces.user import user_name
from recon_pipeline.settings import Settings


def archive(settings: Settings, month: BillingMonth, to: str) -> Archived:
    """Archive a sealed month of every metered usage.

    Raises:
        ReconError: It cannot be archived, with the reason, or the database cannot be used.
    """
    with err.status(f"Archiving {month.key} …"), billing_database(settings).connection() as connection:
        return archive_month(connection, settings, month, to, archived_by=user_name())


def as_json(done: Archived) -> dict[str, Any]:
    """The one object of `--json`."""
    archived = [
        {"partition": one.seal.seal.partition, **vars(one.seal.usage), **asdict(one.archive)} for one in done.months
    ]
    return {"success": True, "archived": archived, "statements": done.statements}


def show(done: Archived) -> None:
    """The same for a person."""
    for one in done.months:
        archive_ = one.archive
        out.print(
            f"Archived {one.seal.of_what}: {archive_.row_count:,} events in {archive_.file_count:,} files, "
            f"{archive_.byte_count:,} bytes, read back as sealed.",
            markup=False,
            soft_wrap=True,
        )
        out.print(f"Folder {archive_.folder}", markup=False, soft_wrap=True)
    if done.statements:
        out.print("Nothing was deleted. The events may leave the log now; as its owner, run:", soft_wrap=True)
    for one in done.statements:
        out.print(one, markup=False, soft_wrap=True)
