"""The command `recon undo`: takes the repairs of a run back, through Dagster as every other change to counters."""

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from recon_pipeline.core.errors import ReconError
from recon_pipeline.faces.commands.common import billing_connection, require_text
from recon_pipeline.faces.console import EXIT_CLEAN, EXIT_NOT_CLEAN, err, json_option, out, show_json, telling_errors

if TYPE_CHECKING:
    from recon_pipeline.store.counters.undo import UndoRecord
    from recon_pipeline.store.counters.undoable import Undo, Undoable


@click.command(epilog='Example: recon undo 4f1c9a02 --customer cus_123 --reason "INC-1234: the log was short"')
@click.argument("run")
@click.option("--customer", "customers", multiple=True, metavar="ID", help="Only this customer; may be repeated.")
@click.option("--reason", required=True, metavar="TEXT", help="Why; recorded.")
@click.option("--dry-run", is_flag=True, help="Show what there is to take back; change nothing.")
@json_option
@telling_errors
def undo(*, run: str, customers: tuple[str, ...], reason: str, dry_run: bool, as_json: bool) -> int:
    """Take back what RUN repaired; usage counted since then stays.

    RUN is the id of a run, or the beginning of it as recon status shows it. Refused unless repairs are paused or the
    customers are held: the next run would make the same repairs again.
    """
    from recon_pipeline.automation.own_runs import own_tag
    from recon_pipeline.faces.orchestrator import user_name
    from recon_pipeline.store.counters import undo as store
    from recon_pipeline.store.counters.undoable import Undo, find_run, require_lasting, undoable
    from recon_pipeline.store.postgres.database import begin

    require_text("--customer", customers, example="cus_123")
    require_text("--reason", [reason], example='"INC-1234: the log was short"')
    require_text("RUN", [run], example="4f1c9a02")
    with billing_connection() as connection:
        with begin(connection):
            undone_run_id = find_run(connection, run)
            request = Undo("", undone_run_id, customers, reason, user_name())
            found = undoable(connection, request)
        if dry_run:
            return _show_undoable(request, found, as_json=as_json)
        require_lasting(found)
        with begin(connection):
            tags = own_tag(connection)
        with err.status("Taking repairs back …"):
            run_id, failure = _run_job(request, tags)
        with begin(connection):
            record = store.read(connection, run_id)
        if record is None or record.finished_at is None:
            raise failure or ReconError(
                f"Run {run_id} ended without a word.", fix=f"Look at run {run_id} in the UI (recon dev)."
            )
    if as_json:
        show_json({"success": record.left == 0, "dry_run": False, **_figures(record)})
    else:
        _show(record)
    return EXIT_NOT_CLEAN if record.left else EXIT_CLEAN


def _run_job(request: "Undo", tags: dict[str, str]) -> tuple[str, ReconError | None]:
    """Run the job in this process; returns its run id, and why it failed if it did."""
    import dagster as dg

    from recon_pipeline.automation.undo import undo_repairs
    from recon_pipeline.faces.orchestrator import failure_of, open_instance, quietly

    config = {
        "run": request.undone_run_id,
        "customers": list(request.customers),
        "reason": request.reason,
        "requested_by": request.requested_by,
    }
    quietly()
    with open_instance() as instance:
        result = undo_repairs.execute_in_process(
            instance=instance,
            raise_on_error=False,
            tags={**tags, "user": request.requested_by},
            run_config=dg.RunConfig(
                ops={"take_repairs_back": {"config": config}},
                loggers={"console": {"config": {"log_level": "CRITICAL"}}},
            ),
        )
    return result.run_id, failure_of(result)


def _figures(record: "UndoRecord") -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _show_undoable(request: "Undo", found: "Undoable", *, as_json: bool) -> int:
    if as_json:
        show_json(
            {
                "success": True,
                "dry_run": True,
                "undone_run_id": request.undone_run_id,
                **asdict(found),
                "would_be_made_again": 0 if found.pause else found.not_held,
            }
        )
        return EXIT_CLEAN
    out.print(
        f"Run {request.undone_run_id}: {found.undoable:,} repairs to take back, which added {found.usage_delta:+,} "
        f"units; {found.already_undone:,} were taken back before. Nothing was changed.",
        soft_wrap=True,
    )
    if found.not_held and not found.pause:
        out.print(
            f"The next run would make {found.not_held:,} of them again: pause repairs or hold the customers first.",
            style="yellow",
            soft_wrap=True,
        )
    return EXIT_CLEAN


def _show(record: "UndoRecord") -> None:
    table = Table(title="Taken back", show_header=False)
    table.add_row("repairs of run", record.undone_run_id)
    for name in ("undone", "already_undone", "below_zero", "without_counter", "deferred", "failed"):
        count = getattr(record, name)
        if count or name == "undone":
            table.add_row(name.replace("_", " "), f"{count:,}")
    table.add_row("by run", record.run_id)
    out.print(table)
    if record.not_undone:
        left = Table("customer", "period start", "counter", "repair added", "why not")
        for row in record.not_undone:
            cells = (
                row["gateway_customer_id"],
                row["period_start"][:10],
                row["usage_count"] or "-",
                row["usage_delta"],
                row["error"] or row["outcome"].replace("_", " "),
            )
            left.add_row(*map(escape, cells))
        out.print(left)
