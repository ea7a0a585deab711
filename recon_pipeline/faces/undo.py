"""`recon undo`: undoes the repairs of a run, through Dagster as every other change to counters."""

from dataclasses import asdict, dataclass, fields
from typing import Any

import dagster as dg
from rich.markup import escape
from rich.table import Table

from recon_pipeline.assets.names import Names
from recon_pipeline.automation.own_runs import own_tag
from recon_pipeline.automation.undo import UndoConfig
from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.periods import instant_in_words
from recon_pipeline.definitions import defs
from recon_pipeline.faces.billing import billing_database
from recon_pipeline.faces.console import EXIT_CLEAN, EXIT_NOT_CLEAN, err, out
from recon_pipeline.faces.orchestrator import SILENT, error_of, open_instance, quietly
from recon_pipeline.faces.user import user_name
from recon_pipeline.settings import Settings, read_name
from recon_pipeline.store.counters import undo as store
from recon_pipeline.store.counters.undo import UndoRecord
from recon_pipeline.store.counters.undo_request import Undoable, UndoRequest, find_run, find_undoable, require_lasting
from recon_pipeline.store.postgres.database import begin
from recon_pipeline.store.records.customers import require_known_customers


@dataclass(frozen=True)
class UndoOptions:
    """What a person asks to undo.

    Attributes:
        run: Whose repairs: the id of a run, or the beginning of it.
        customers: Only these, or all if empty.
        reason: Why.
        dry_run: Only show what would be undone.
    """

    run: str
    customers: tuple[str, ...]
    reason: str
    dry_run: bool


@dataclass(frozen=True)
class Undone:
    """The result.

    Attributes:
        request: What was asked for, with the whole id of the run.
        found: The repairs that could be undone.
        record: How the undo ended, or None in a dry run.
    """

    request: UndoRequest
    found: Undoable
    record: UndoRecord | None


def undo(settings: Settings, options: UndoOptions) -> Undone:
    """Undo what was asked for, in one run.

    Raises:
        ReconError: There is no such run, its repairs would be made again, or the database or Dagster failed.
    """
    with billing_database(settings).connection() as connection:
        with begin(connection):
            require_known_customers(connection, options.customers)
            request = UndoRequest("", find_run(connection, options.run), options.customers, options.reason, user_name())
            found = find_undoable(connection, request)
        if options.dry_run:
            return Undone(request, found, None)
        require_lasting(found)
        with begin(connection):
            tags = own_tag(connection)
        with err.status("Taking repairs back …"):
            run_id, error = _run_job(request, tags)
        with begin(connection):
            record = store.read(connection, run_id)
    if record is None or record.finished_at is None:
        raise error or ReconError(f"Run {run_id} left no record.", fix=f"Look at run {run_id} in the UI (recon dev).")
    return Undone(request, found, record)


def exit_code(undone: Undone) -> int:
    """0 if nothing is left to undo."""
    return EXIT_NOT_CLEAN if undone.record is not None and undone.record.left else EXIT_CLEAN


def as_json(undone: Undone) -> dict[str, Any]:
    """The one object of `--json`."""
    record = undone.record
    if record is not None:
        figures = {field.name: getattr(record, field.name) for field in fields(record)}
        return {"success": record.left == 0, "dry_run": False, **figures}
    return {
        "success": True,
        "dry_run": True,
        "undone_run_id": undone.request.undone_run_id,
        **asdict(undone.found),
        "would_be_made_again": 0 if undone.found.pause else undone.found.not_held,
    }


def show(undone: Undone) -> None:
    """The same for a person."""
    if undone.record is not None:
        _show_record(undone.record)
    else:
        _show_undoable(undone.request, undone.found)


def _run_job(request: UndoRequest, tags: dict[str, str]) -> tuple[str, ReconError | None]:
    """Run the job in this process; returns its run id, and why it failed if it did."""
    config = UndoConfig(
        run=request.undone_run_id,
        customers=list(request.customers),
        reason=request.reason,
        requested_by=request.requested_by,
    )
    quietly()
    names = Names(read_name())
    with open_instance() as instance:
        result = defs.resolve_job_def(names.of("undo_repairs")).execute_in_process(
            instance=instance,
            raise_on_error=False,
            tags={**tags, "user": request.requested_by},
            run_config=dg.RunConfig(ops={names.of("take_repairs_back"): config}, loggers=SILENT),
        )
    return result.run_id, error_of(result)


def _show_undoable(request: UndoRequest, found: Undoable) -> None:
    out.print(
        f"Run {request.undone_run_id}: {found.undoable:,} repairs to undo, which added {found.usage_delta:+,} "
        f"units; {found.already_undone:,} were undone before. Nothing was changed.",
        soft_wrap=True,
    )
    if found.sealed:
        out.print(
            f"{found.sealed:,} more are of sealed months and stay, unless these are reopened (recon reopen).",
            style="yellow",
            soft_wrap=True,
        )
    if found.not_held and not found.pause:
        out.print(
            f"The next run would make {found.not_held:,} of them again: pause repairs or hold the customers first.",
            style="yellow",
            soft_wrap=True,
        )


def _show_record(record: UndoRecord) -> None:
    table = Table(title="Undone", show_header=False)
    table.add_row("repairs of run", record.undone_run_id)
    for name in ("undone", "already_undone", "below_zero", "without_counter", "sealed", "deferred", "failed"):
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
                instant_in_words(row["period_start"]),
                row["usage_count"] or "-",
                row["usage_delta"],
                row["error"] or row["outcome"].replace("_", " "),
            )
            left.add_row(*map(escape, cells))
        out.print(left)
