"""`recon backfills` and `recon rejected`: the batches, and the rows that are not in the log, to be fixed."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.faces.billing import billing_database
from recon_pipeline.faces.console import out
from recon_pipeline.faces.rejected_file import write_rejected
from recon_pipeline.settings import Settings
from recon_pipeline.store.backfill import batches
from recon_pipeline.store.backfill.batches import Batch, NotTaken

BATCHES_SHOWN = 20
ROWS_SHOWN = 50
_COUNTS = ("read", "inserted", "duplicate", "conflict", "rejected")


@dataclass(frozen=True)
class Rejected:
    """The answer of `recon rejected`.

    Attributes:
        batch: Its record.
        rows: The first rows that are not in the log.
        output: The file that holds all of them, or None.
    """

    batch: Batch
    rows: tuple[NotTaken, ...]
    output: Path | None


def read_batches(settings: Settings) -> tuple[Batch, ...]:
    """The latest batches, newest first."""
    with billing_database(settings).transaction() as connection:
        return batches.recent(connection, rows=BATCHES_SHOWN)


def batches_as_json(found: tuple[Batch, ...]) -> dict[str, Any]:
    """The one object of `--json`."""
    return {"success": True, "batches": [asdict(batch) for batch in found]}


def show_batches(found: tuple[Batch, ...]) -> None:
    """The same for a person."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    for heading in ("batch", "started (UTC)", "outcome", *_COUNTS, "source"):
        table.add_column(heading, justify="right" if heading in _COUNTS else "left")
    for batch in found:
        table.add_row(
            batch.batch_id[:8],
            f"{batch.started_at:%m-%d %H:%M}",
            "dry run" if batch.dry_run and batch.outcome == "done" else batch.outcome,
            *(f"{figure:,}" for figure in (batch.rows_read, batch.inserted, batch.duplicate)),
            *(f"{figure:,}" for figure in (batch.conflict, batch.rejected)),
            escape(", ".join(source.rpartition("/")[2] or source for source in batch.sources)),
        )
    out.print(table)
    for batch in found:
        if batch.error is not None:
            out.print(f"{batch.batch_id[:8]} failed: {batch.error}", markup=False, soft_wrap=True)


def read_rejected(settings: Settings, batch: str, output: Path | None) -> Rejected:
    """The rows of a batch that are not in the log; all of them are written to `output`, if that is given.

    Raises:
        ConfigurationError: No such batch, or a file of another kind.
    """
    if output is not None and output.suffix not in (".csv", ".ndjson"):
        raise ConfigurationError(
            f"--output is {output}, which ends neither in .csv nor in .ndjson.", fix="Give it one of these endings."
        )
    database = billing_database(settings)
    with database.transaction() as connection:
        found = batches.named(connection, batch)
        rows = batches.not_taken(connection, found.batch_id, rows=ROWS_SHOWN)
    if output is not None:
        write_rejected(lambda: batches.every_not_taken(database, found.batch_id), found.mapping, output)
    return Rejected(found, rows, output)


def rejected_as_json(found: Rejected) -> dict[str, Any]:
    """The one object of `--json`."""
    return {
        "success": True,
        "batch_id": found.batch.batch_id,
        "conflict": found.batch.conflict,
        "rejected": found.batch.rejected,
        "output": found.output,
        "rows": [asdict(row) | {"row": json.loads(row.raw_row)} for row in found.rows],
    }


def show_rejected(found: Rejected) -> None:
    """The same for a person."""
    for row in found.rows:
        out.print(f"{row.source}:{row.line} {row.kind}", style="bold", markup=False, soft_wrap=True)
        for reason in row.reasons:
            out.print(f"  {reason}", markup=False, soft_wrap=True)
        out.print(f"  row:   {row.raw_row}", markup=False, soft_wrap=True)
        if row.stays is not None:
            out.print(f"  stays: {json.dumps(row.stays)}", markup=False, soft_wrap=True)
    total = found.batch.conflict + found.batch.rejected
    if found.output is not None:
        out.print(f"All of them are in {found.output}.", markup=False, soft_wrap=True)
    elif total > len(found.rows):
        out.print(f"{total:,} in all; --output FILE writes them.")
    elif not total:
        out.print("Every row of this batch is in the log.")
