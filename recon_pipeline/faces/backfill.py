"""The command `recon backfill-events`: from sources and a mapping to one run, and back to one answer."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from recon_pipeline.core.backfill.mapping import NOTHING_INSERTED, parse_mapping, parse_mapping_text
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.periods import BillingMonth, require_known
from recon_pipeline.faces import reconcile as reconcile_face
from recon_pipeline.faces.backfill_job import Backfilled, BackfillRequest, backfill
from recon_pipeline.faces.console import EXIT_BLOCKED, EXIT_CLEAN, EXIT_NOT_CLEAN, err, out
from recon_pipeline.faces.orchestrator import open_instance
from recon_pipeline.settings import Settings
from recon_pipeline.store.backfill.dry_run import Plan
from recon_pipeline.store.backfill.exports import is_in_database

CUSTOMERS_SHOWN = 10


@dataclass(frozen=True)
class Asked:
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


def run_backfill(settings: Settings, asked: Asked) -> Backfilled:
    """Insert what was asked, in one run.

    Raises:
        ConfigurationError: A mapping, a month or a source that cannot be used.
        ReconError: A source or the database failed.
    """
    from recon_pipeline.settings import known_months

    mapping = _mapping(asked.mapping)
    first, current = known_months()
    months = sorted(BillingMonth.parse(key) for key in asked.periods) or [first, current]
    require_known(months, first=first, current=current)
    config = {
        "source": [_absolute(source) for source in asked.sources],
        "mapping": mapping,
        "periods": list(asked.periods),
        "dry_run": asked.dry_run,
    }
    request = BackfillRequest(
        config=config,
        first=months[0],
        last=months[-1],
        reconcile=not (asked.dry_run or asked.no_reconcile),
        approve_reason=(asked.approve_reason or "").strip(),
    )
    with open_instance() as instance, _progress_bar():
        return backfill(settings, instance, request)


def exit_code(ended: Backfilled) -> int:
    """0 if every row is in the log and its counters match, 3 if a guard blocked the repair, else 1."""
    if ended.reconciled is not None:
        outcome = ended.reconciled.record.outcome
        if outcome == "blocked":
            return EXIT_BLOCKED
        if outcome != "clean":
            return EXIT_NOT_CLEAN
    return EXIT_CLEAN if ended.batch.is_clean else EXIT_NOT_CLEAN


def as_json(ended: Backfilled) -> dict[str, Any]:
    """The one object of `--json`."""
    batch, reconciled = ended.batch, ended.reconciled
    return {
        "success": exit_code(ended) == EXIT_CLEAN,
        "dry_run": batch.dry_run,
        "batch_id": batch.batch_id,
        "rows_read": batch.rows_read,
        "inserted": batch.inserted,
        "duplicate": batch.duplicate,
        "conflict": batch.conflict,
        "rejected": batch.rejected,
        "partitions": batch.partitions,
        "plan": None if ended.plan is None else asdict(ended.plan),
        "reconcile": None if reconciled is None else reconcile_face.as_json([reconciled], dry_run=False),
    }


def show(ended: Backfilled) -> None:
    """The same for a person."""
    batch = ended.batch
    table = Table(title="What would happen" if batch.dry_run else "Backfill", show_header=False)
    for name in ("rows_read", "inserted", "duplicate", "conflict", "rejected"):
        table.add_row(name, f"{getattr(batch, name):,}")
    table.add_row("billing months", ", ".join(batch.partitions) or "-")
    table.add_row("batch", batch.batch_id)
    out.print(table)
    if ended.plan is not None:
        _show_plan(ended.plan)
    if batch.conflict or batch.rejected:
        out.print(
            f"{batch.conflict + batch.rejected:,} rows are not in the log. Why, and the rows: "
            f"recon rejected {batch.batch_id[:8]}",
            soft_wrap=True,
        )
    if ended.reconciled is not None:
        reconcile_face.show([ended.reconciled], dry_run=False)
        if ended.reconciled.record.outcome == "blocked":
            out.print(
                "The events are in the log; the counters are as they were. To let them be repaired: "
                'recon reconcile --approve "your reason"',
                style="bold",
                soft_wrap=True,
            )


def _show_plan(plan: Plan) -> None:
    months = Table("month", "outcome", title="By billing month")
    for heading in ("events", "units", "customers"):
        months.add_column(heading, justify="right")
    for month in plan.months:
        months.add_row(month.partition, month.outcome, *map(str, (month.events, month.units, month.customers)))
    out.print(months)
    customers = Table("customer", "month", title="Customers who would get the most")
    for heading in ("events", "units"):
        customers.add_column(heading, justify="right")
    for customer in plan.customers[:CUSTOMERS_SHOWN]:
        name = escape(customer.gateway_customer_id)
        customers.add_row(name, customer.partition, str(customer.events), str(customer.units))
    out.print(customers)
    out.print(f"{plan.over_quota_transitions:,} customers would go over their quota.")
    for over in plan.over_quota[:CUSTOMERS_SHOWN]:
        out.print(
            f"  {over.gateway_customer_id}: {over.usage_count:,} to {over.usage_count_after}, "
            f"limit {over.usage_limit:,}",
            markup=False,
        )


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
    """A path as it is found from anywhere; the run may be looked at later."""
    return source if is_in_database(source) or "://" in source else str(Path(source).absolute())


@contextmanager
def _progress_bar() -> Generator[None]:
    from recon_pipeline.assets.backfilled_events import on_progress

    columns = (TextColumn("Reading"), BarColumn(), TextColumn("{task.fields[rows]:,} rows"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("", total=None, rows=0)

        def tell(rows_read: int, done: float | None) -> None:
            bar.update(task, rows=rows_read, total=None if done is None else 1.0, completed=done or 0)

        token = on_progress.set(tell)
        try:
            yield
        finally:
            on_progress.reset(token)
