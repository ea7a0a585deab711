"""`recon backfill-events`: from sources and a mapping to one run, and back to one answer."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from recon_pipeline.core.backfill.mapping import NOTHING_INSERTED, parse_mapping, parse_mapping_text
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.periods import BillingMonth, require_known
from recon_pipeline.faces.backfilled import Backfilled
from recon_pipeline.faces.console import err
from recon_pipeline.settings import Settings, known_months
from recon_pipeline.sources.names import STDIN
from recon_pipeline.store.backfill.exports import is_in_database
from recon_pipeline.store.backfill.load import OnProgress


@dataclass(frozen=True)
class BackfillOptions:
    """The options of the command as given.

    Attributes:
        sources: Files, globs, folders, URLs, tables, queries.
        mapping: Path of a mapping, or None.
        periods: Partition keys, `YYYY-MM`.
        dry_run: Insert nothing.
        no_reconcile: Leave the counters alone.
        approve_reason: Why a repair beyond the budgets is right, or None.
    """

    sources: tuple[str, ...]
    mapping: Path | None
    periods: tuple[str, ...]
    dry_run: bool
    no_reconcile: bool
    approve_reason: str | None


def run_backfill(settings: Settings, options: BackfillOptions) -> Backfilled:
    """Insert what was asked for, in one run.

    Raises:
        ConfigurationError: A mapping, a month or a source that cannot be used.
        ReconError: A source or the database failed.
    """
    mapping = _mapping(options.mapping)
    first, current = known_months()
    months = sorted(BillingMonth.parse(key) for key in options.periods) or [first, current]
    require_known(months, first=first, current=current)
    # Only now: wrong usage is reported before Dagster, which takes seconds to load.
    from recon_pipeline.faces.backfill_job import BackfillRequest, backfill  # noqa: PLC0415

    request = BackfillRequest(
        source=tuple(map(_absolute, options.sources)),
        mapping=mapping,
        periods=options.periods,
        dry_run=options.dry_run,
        first=months[0],
        last=months[-1],
        reconcile=not (options.dry_run or options.no_reconcile),
        approve_reason=(options.approve_reason or "").strip(),
    )
    with _progress_bar() as report_progress:
        return backfill(settings, request, report_progress)


def _mapping(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"The mapping {path} cannot be read: {error}.",
            changed=NOTHING_INSERTED,
            fix="Give a text file in UTF-8 that this account may read.",
        ) from error
    given = parse_mapping_text(text, name=f"The mapping {path}")
    parse_mapping(given)
    return given


def _absolute(source: str) -> str:
    """A path that is valid from any folder, for the record of the run."""
    return source if is_in_database(source) or "://" in source or source == STDIN else str(Path(source).absolute())


@contextmanager
def _progress_bar() -> Generator[OnProgress]:
    columns = (TextColumn("Reading"), BarColumn(), TextColumn("{task.fields[rows]:,} rows"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("", total=None, rows=0)

        def report(rows_read: int, done: float | None) -> None:
            bar.update(task, rows=rows_read, total=None if done is None else 1.0, completed=done or 0)

        yield report
