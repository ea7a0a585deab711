"""What the end of a run shows about its checks and about runs in general."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from recon_pipeline.core.alerts import (
    DEAD_MANS_SWITCH,
    DEAD_MANS_SWITCH_MINUTES,
    RECONCILE_RUNS,
    Observation,
    Severity,
)
from recon_pipeline.core.periods import BillingMonth

_KILLED = (
    "It ended without an error: its process was killed, or never started. Whole chunks of repairs are done, the rest "
    "is unchanged; the next run finishes.\nWhat to do: look at the run's page and at the machine's memory and logs."
)
_SILENT = (
    f"No run has reconciled the current billing month for {DEAD_MANS_SWITCH_MINUTES} minutes, and repairs are not "
    "paused. Drift is not detected.\nWhat to do: recon doctor shows whether schedule and daemon are alive, "
    "recon status how the latest runs ended."
)


class Ending(StrEnum):
    """How a run ended, according to Dagster."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


@dataclass(frozen=True)
class CheckOutcome:
    """One check of a run.

    Attributes:
        severity: How it failed, or None if it passed in every month.
        failed_months: In which it failed; those of the run, if it is about the whole run.
        passed_months: In which it passed, likewise.
        is_blocking: No step after it runs if it fails.
        details: For a person.
    """

    name: str
    severity: Severity | None
    failed_months: frozenset[BillingMonth]
    passed_months: frozenset[BillingMonth]
    is_blocking: bool
    details: str


@dataclass(frozen=True)
class EndedRun:
    """A run that ended, according to Dagster.

    Attributes:
        job: The job's name.
        months: Its billing months, or None for a job that is not about months.
        failure: The reason, as far as Dagster knows it, or ''.
        link: Its page in the UI, or ''.
        checks: In the order in which they were evaluated.
    """

    run_id: str
    ended_at: datetime
    job: str
    ending: Ending
    months: tuple[BillingMonth, ...] | None
    failure: str
    link: str
    checks: tuple[CheckOutcome, ...]


@dataclass(frozen=True)
class OwnRecord:
    """The record of the run in schema recon.

    Attributes:
        outcome: As in `recon.reconciliation_run`.
        is_partial: It covered some customers only.
        error: Its text, or None.
    """

    outcome: str
    is_partial: bool
    error: str | None


def observations(run: EndedRun, record: OwnRecord | None) -> Iterator[Observation]:
    """What the run shows: about each of its checks, then about runs in general."""
    is_partial = record is not None and record.is_partial
    months = frozenset(run.months or ())
    for check in run.checks:
        if check.severity is not None:
            yield Observation(check.name, check.severity, check.failed_months, is_partial, check.details)
        if check.severity is None or check.passed_months:
            yield Observation(check.name, None, check.passed_months, is_partial)
    subject = run.job if run.months is None else RECONCILE_RUNS
    if run.ending is Ending.FAILED and not _needs_no_alert(run, record):
        severity = Severity.WARN if run.months is None else Severity.ERROR
        details = (record and record.error) or run.failure or _KILLED
        where = f"Run {run.run_id} of job {run.job}.\n{run.link}".rstrip()
        yield Observation(subject, severity, months, details=f"{details}\n{where}")
    elif run.ending is Ending.SUCCEEDED and (
        run.months is None or (record is not None and record.outcome in ("clean", "not_clean", "paused"))
    ):
        yield Observation(subject, None, months, is_partial)


def silence(
    *, last_success: datetime | None, paused_at: datetime | None, watching_since: datetime, now: datetime, link: str
) -> Observation:
    """The dead man's switch: whether no run has succeeded for too long.

    Args:
        last_success: When a run over every customer last verified the current month.
        paused_at: When repairs were last seen paused.
        watching_since: When this was first evaluated.
        now: By the same clock as the others.
        link: Where to look in the UI, or ''.
    """
    heard_at = max(moment for moment in (last_success, paused_at, watching_since) if moment is not None)
    if now - heard_at <= timedelta(minutes=DEAD_MANS_SWITCH_MINUTES):
        return Observation(DEAD_MANS_SWITCH, None)
    last = f"{last_success:%Y-%m-%d %H:%M} UTC" if last_success else "none yet"
    return Observation(DEAD_MANS_SWITCH, Severity.ERROR, details=f"{_SILENT}\nLast success: {last}.\n{link}".rstrip())


def _needs_no_alert(run: EndedRun, record: OwnRecord | None) -> bool:
    """Whether the failure needs no alert: its check sends one, or it was put off (see the dead man's switch)."""
    if record is None:
        return False
    return record.outcome == "put_off" or (record.outcome == "blocked" and _blocked(run.checks))


def _blocked(checks: Sequence[CheckOutcome]) -> bool:
    return any(check.is_blocking and check.severity is Severity.ERROR for check in checks)
