"""`recon status`: when counters last matched, the mode, what waits for a person, and the latest runs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from sqlalchemy import Connection

from recon_pipeline.core.alerts import Alarm, Severity
from recon_pipeline.core.approving import SEE_ALL
from recon_pipeline.core.errors import one_line
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.faces.billing import billing_database, which_database
from recon_pipeline.faces.console import out
from recon_pipeline.settings import Settings
from recon_pipeline.store.counters import holds
from recon_pipeline.store.counters.holds import Hold
from recon_pipeline.store.counters.pause import Pause, read_pause
from recon_pipeline.store.log.billing_tables import require_trustworthy
from recon_pipeline.store.log.sealed_months import SealedMonth, read_sealed_months
from recon_pipeline.store.records import accepted_usages, alerts, outbox, runs
from recon_pipeline.store.records.outbox import Undelivered
from recon_pipeline.store.records.retention import Retention, read_retention
from recon_pipeline.store.records.runs import RunRecord
from recon_pipeline.store.sums import modes
from recon_pipeline.store.sums.modes import Mode, ModeChoice

RUNS_SHOWN = 10
HOLDS_SHOWN = 5


@dataclass(frozen=True)
class Status:
    """What is known from schema `recon`; runs are the newest `RUNS_SHOWN`.

    Attributes:
        database: Without its password.
        which: The same, and why it is this one.
        mode_choice: How a run that begins now takes event sums, and why.
        waiting: Metered usages, or months of them, that wait for their first approval.
        pause: Of repairs, if they are paused.
        holds: Customers that are left alone, those that end first first.
        retention: The months that are declared to be no longer in the log, if any.
        sealed: The sealed months, the oldest first.
        last_clean: The newest run shown that looked at every customer and left every counter of its months matching.
        runs: The latest, newest first.
        failing: What alerts reported and has not passed since.
        undelivered: Messages that a target has not got yet.
    """

    database: str
    which: str
    mode_choice: ModeChoice
    waiting: tuple[MeteredUsage, ...]
    pause: Pause | None
    holds: tuple[Hold, ...]
    retention: Retention | None
    sealed: tuple[SealedMonth, ...]
    last_clean: RunRecord | None
    runs: tuple[RunRecord, ...]
    failing: tuple[Alarm, ...]
    undelivered: tuple[Undelivered, ...]

    @property
    def is_clean(self) -> bool:
        """Whether every counter matched in the newest run over every customer that ended and was not dry or put off."""
        undecided = ("running", "compared", "put_off")
        ended = [run for run in self.runs if run.customers is None and run.outcome not in undecided]
        return bool(ended) and ended[0].outcome == "clean"

    @property
    def latest_decided(self) -> RunRecord | None:
        """The newest run over every customer that ended and was not dry, paused or put off."""
        undecided = ("running", "compared", "put_off", "paused")
        return next((run for run in self.runs if run.customers is None and run.outcome not in undecided), None)


def read_status(settings: Settings) -> Status:
    """Read what is known.

    Raises:
        ReconError: The database was prepared by another release or never, or cannot be reached.
    """
    database = billing_database(settings)
    with database.transaction() as connection:
        return status_of(connection, database.name, settings)


def status_of(connection: Connection, database: str, settings: Settings) -> Status:
    """Read what is known; in a transaction.

    Raises:
        ReconError: Like `read_status`.
    """
    mode_choice = modes.choose(connection, require_trustworthy(connection))
    waiting = accepted_usages.waiting(connection, settings.scope, settings.start_period)
    latest = runs.recent(connection, rows=RUNS_SHOWN)
    clean = (run for run in latest if run.outcome == "clean" and run.customers is None)
    return Status(
        database=database,
        which=which_database(database, settings),
        mode_choice=mode_choice,
        waiting=tuple(one.usage for one in waiting if one.before is None),
        pause=read_pause(connection),
        holds=holds.open_holds(connection),
        retention=read_retention(connection),
        sealed=read_sealed_months(connection),
        last_clean=next(clean, None),
        runs=latest,
        failing=alerts.alarms(connection),
        undelivered=outbox.undelivered(connection),
    )


def as_json(status: Status) -> dict[str, Any]:
    """The one object of `--json`."""
    return {
        "success": status.is_clean,
        "database": status.database,
        "mode": status.mode_choice.mode,
        "mode_reason": status.mode_choice.reason,
        "waiting_for_approval": [str(usage) for usage in status.waiting],
        "paused": asdict(status.pause) if status.pause else None,
        "holds": [asdict(hold) for hold in status.holds],
        "retention": asdict(status.retention) if status.retention else None,
        "newest_sealed_month": status.sealed[-1].month.key if status.sealed else None,
        "sealed_months": sorted({one.month.key for one in status.sealed}),
        "last_clean_at": status.last_clean.started_at if status.last_clean else None,
        "runs": [asdict(run) for run in status.runs],
        "alerts": {
            "failing": [
                {"subject": alarm.subject, "severity": alarm.severity, "failing_since": alarm.failing_since}
                for alarm in status.failing
            ],
            "undelivered": [asdict(one) for one in status.undelivered],
        },
    }


def show(status: Status) -> None:
    """The same for a person."""
    out.print(status.which, markup=False, soft_wrap=True)
    if status.mode_choice.mode is Mode.INCREMENTAL:
        out.print("Mode incremental: a run reads what is new in the log, and compares what changed.")
    else:
        out.print(f"Mode full: every run reads the whole log, since {status.mode_choice.reason}.", markup=False)
    for usage in status.waiting:
        out.print(
            f"{usage} waits for its first run to be approved: unless every counter matches, nothing of it is repaired "
            f"before. To see what would be, and the command that approves it: {SEE_ALL}",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )
    if status.pause is not None:
        out.print(f"Repairs are paused {status.pause}", style="yellow", markup=False, soft_wrap=True)
    for hold in status.holds[:HOLDS_SHOWN]:
        out.print(
            f"Held by {hold.held_by} until {hold.until:%Y-%m-%d %H:%M} UTC: {one_line(hold.gateway_customer_id)}, "
            f"{hold.partition or 'every month'}: {hold.reason}",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )
    if len(status.holds) > HOLDS_SHOWN:
        out.print(f"… and {len(status.holds) - HOLDS_SHOWN:,} more holds.", style="yellow")
    if status.retention is not None:
        out.print(f"Not compared: {status.retention}.", markup=False, soft_wrap=True)
    if status.sealed:
        months = len({one.month for one in status.sealed})
        out.print(f"The newest sealed month is {status.sealed[-1].month.key}; sealed in all: {months:,}.")
    clean = status.last_clean
    if not status.runs:
        out.print(f"No run was made on this database yet. To compare without repairing: {SEE_ALL}", soft_wrap=True)
    elif clean is None:
        out.print("No run shown here has verified that every counter matches; a dry run only compares.")
    else:
        out.print(
            f"Every counter of {clean.first_partition} to {clean.last_partition} matched its event sum "
            f"in the run of {clean.started_at:%Y-%m-%d %H:%M:%S} UTC."
        )
    decided = status.latest_decided
    if decided is not None and decided.outcome == "blocked":
        out.print("The latest run was blocked: a person has to approve it.", style="red")
        out.print(decided.error, style="red", markup=False, soft_wrap=True)
    for alarm in status.failing:
        style = "red" if alarm.severity is Severity.ERROR else "yellow"
        out.print(f"[{style}]{alarm.subject}[/] fails since {alarm.failing_since:%Y-%m-%d %H:%M} UTC")
    for one in status.undelivered:
        out.print(f"{one.messages} alerts are not delivered to {one.target_name}: {one.why}", markup=False)
    if status.runs:
        _show_runs(status.runs)


def _show_runs(runs: Sequence[RunRecord]) -> None:
    table = Table(box=None, padding=(0, 1, 0, 0))  # fits 80 columns
    for heading in ("started (UTC)", "months", "outcome", "drift", "repaired", "failed", "deferred", "took", "run"):
        justify = "right" if heading in ("drift", "repaired", "failed", "deferred") else "left"
        table.add_column(heading, justify=justify, no_wrap=heading in ("outcome", "run"))
    for run in runs:
        figures = (run.drift_count, run.rows_repaired, run.reconcile_failures, run.deferred_count)
        table.add_row(
            f"{run.started_at:%m-%d %H:%M}",
            run.first_partition
            + (f" to {run.last_partition}" if run.last_partition != run.first_partition else "")
            + (f", {len(run.customers)} customers only" if run.customers else ""),
            run.outcome.replace("_", " "),
            *("-" if figure is None else f"{figure:,}" for figure in figures),
            f"{run.duration_ms / 1000:.1f} s",
            f"= {run.confirms_run_id[:8]}" if run.confirms_run_id else run.run_id[:8],
        )
    out.print(table)
