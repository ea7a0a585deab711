"""How the demo closes its oldest month: sealed, and archived to a folder beside the embedded server's data."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.console import out
from recon_pipeline.settings import Settings
from recon_pipeline.store.counters.sealing import Sealed
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.postgres.statements import labelled
from recon_pipeline.store.records.closing import close_month

_BY = "recon demo"
# The oldest month of the demo's counters.
_OLDEST_MONTH = labelled(
    "oldest_month_of_demo", "select min(recon.billing_month(period_start)) from billing_usage_counters"
)


@dataclass(frozen=True)
class ClosedMonth:
    """The month that was closed.

    Attributes:
        sealed: Its seal.
        folder: Where its events are now, too; None: the packages that archive are not installed.
        files: How many files that are.
    """

    sealed: Sealed
    folder: str | None
    files: int


def close_oldest_month(database: BillingDatabase, settings: Settings, to: Path) -> ClosedMonth:
    """Seal and archive it; what an earlier demo archived to that folder, which is the demo's own, is deleted.

    Raises:
        ReconError: It cannot be sealed or archived, with the reason.
    """
    with database.transaction() as connection:
        month = BillingMonth.parse(connection.execute(_OLDEST_MONTH).scalar_one())
    shutil.rmtree(to, ignore_errors=True)
    with database.connection() as connection:
        (sealed,) = close_month(connection, settings, month, sealed_by=_BY, reason="its invoices are sent")
        from recon_pipeline.assets.archiving import archive_month  # noqa: PLC0415 - loads Arrow, for seconds

        try:
            done = archive_month(connection, settings, month, str(to), archived_by=_BY)
        except ConfigurationError:
            return ClosedMonth(sealed, None, 0)
    (archived,) = done.months
    return ClosedMonth(sealed, archived.archive.folder, archived.archive.file_count)


def show(closed: ClosedMonth) -> None:
    """The same for a person."""
    record = closed.sealed.record
    seal, files = record.seal, f"{closed.files:,} Parquet file{'s' if closed.files != 1 else ''}"
    out.rule("The oldest month is closed")
    out.print(
        f"Sealed {record.of_what}: {seal.key_count:,} keys, {seal.event_count:,} events, {int(seal.usage_count):,} "
        "units. Its counters stay what was billed, whatever happens to the log.",
        markup=False,
    )
    if closed.folder is None:
        out.print("Not archived: that needs uv pip install 'recon-pipeline[lake]'.", markup=False)
        return
    out.print(f"Archived and read back as sealed: {files} in {escape(closed.folder)}", soft_wrap=True)
    out.print("Nothing was deleted. recon verify-seals proves both; recon corrections shows what comes after.")


def as_json(closed: ClosedMonth) -> dict[str, Any]:
    """For the one object of `--json`."""
    seal = asdict(closed.sealed.record.seal)
    names = ("partition", "key_count", "event_count", "checksum")
    units = int(closed.sealed.record.seal.usage_count)
    return {**{name: seal[name] for name in names}, "usage_count": units, "archive": closed.folder}
