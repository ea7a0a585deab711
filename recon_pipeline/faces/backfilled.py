"""How a backfill ended: typed, as JSON, and for a person. Knows nothing of Dagster."""

from dataclasses import asdict, dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from recon_pipeline.core.approving import ShownRun
from recon_pipeline.core.errors import one_line
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces import reconciled as reconciliations
from recon_pipeline.faces.console import EXIT_BLOCKED, EXIT_CLEAN, EXIT_NOT_CLEAN, out
from recon_pipeline.faces.reconciled import Reconciled
from recon_pipeline.settings import known_months
from recon_pipeline.sources.names import Unread
from recon_pipeline.store.backfill.batches import Batch
from recon_pipeline.store.backfill.dry_run import Preview

CUSTOMERS_SHOWN = 10
UNREAD_SHOWN = 20


@dataclass(frozen=True)
class Backfilled:
    """How a backfill ended.

    Attributes:
        batch: The outcomes of the rows.
        preview: The preview of a dry run, else None.
        reconciled: How the reconciliation ended, or None if there was none.
        unread: Files of the sources that were found and not read.
        sealed: Those of its billing months that are sealed, `YYYY-MM`.
    """

    batch: Batch
    preview: Preview | None
    reconciled: Reconciled | None
    unread: tuple[Unread, ...]
    sealed: tuple[str, ...]


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
        "skipped": batch.skipped,
        "partitions": batch.partitions,
        "sealed_months": ended.sealed,
        "files_not_read": [asdict(one) for one in ended.unread],
        "plan": None if ended.preview is None else asdict(ended.preview),
        "reconcile": None
        if reconciled is None
        else reconciliations.as_json(reconciliations.summarize([reconciled], dry_run=False)),
    }


def show(ended: Backfilled) -> None:
    """The same for a person."""
    batch = ended.batch
    table = Table(title="What would happen" if batch.dry_run else "Backfill", show_header=False)
    for name in ("rows_read", "inserted", "duplicate", "conflict", "rejected"):
        table.add_row(name, f"{getattr(batch, name):,}")
    if batch.skipped:
        table.add_row("skipped", f"{batch.skipped:,}")
    table.add_row("billing months", ", ".join(batch.partitions) or "-")
    table.add_row("batch", batch.batch_id)
    out.print(table)
    for one in ended.unread[:UNREAD_SHOWN]:
        out.print(f"not read: {escape(one.name)} ({escape(one.reason)})", soft_wrap=True)
    if len(ended.unread) > UNREAD_SHOWN:
        out.print(f"not read: {len(ended.unread) - UNREAD_SHOWN:,} more files; --json names all")
    if ended.sealed:
        out.print(
            f"Sealed: {', '.join(ended.sealed)}. Events of these months change no counter: "
            "recon corrections shows them.",
            style="yellow",
            soft_wrap=True,
        )
    if ended.preview is not None:
        _show_preview(ended.preview)
    if batch.conflict or batch.rejected:
        out.print(
            f"{batch.conflict + batch.rejected:,} rows are not in the log. Why, and the rows: "
            f"recon rejected {batch.batch_id[:8]}",
            soft_wrap=True,
        )
    if ended.reconciled is not None:
        reconciliations.show([ended.reconciled], dry_run=False)
        record = ended.reconciled.record
        if record.outcome == "blocked":
            months = BillingMonth.parse(record.first_partition), BillingMonth.parse(record.last_partition)
            approval = ShownRun(record.run_id, *months, record.customers or (), known_months()).approval()
            out.print(
                f"The events are in the log; the counters are as they were. To let them be repaired: {approval}",
                style="bold",
                markup=False,
                soft_wrap=True,
            )


def _show_preview(preview: Preview) -> None:
    months = Table("month", "outcome", title="By billing month")
    for heading in ("events", "units", "customers"):
        months.add_column(heading, justify="right")
    for month in preview.months:
        months.add_row(month.partition, month.outcome, *map(str, (month.events, month.units, month.customers)))
    out.print(months)
    customers = Table("customer", "month", title="Customers who would get the most")
    for heading in ("events", "units"):
        customers.add_column(heading, justify="right")
    for customer in preview.customers[:CUSTOMERS_SHOWN]:
        name = escape(customer.gateway_customer_id)
        customers.add_row(name, customer.partition, str(customer.events), str(customer.units))
    out.print(customers)
    out.print(f"{preview.over_quota_transitions:,} customers would go over their quota.")
    for over in preview.over_quota[:CUSTOMERS_SHOWN]:
        out.print(
            f"  {one_line(over.gateway_customer_id)}: {over.usage_count:,} to {over.usage_count_after}, "
            f"limit {over.usage_limit:,}",
            markup=False,
        )
