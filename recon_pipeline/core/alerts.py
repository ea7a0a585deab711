"""When somebody is told, and in which words.

Invariant: a subject (a check, runs, the dead man's switch) is told of when it begins to fail, when it gets worse and
when it passes again, once each; while it fails, again after `REMINDER_HOURS`. What failed for some billing months
passes again when every one of them has passed, in whatever runs. Knows no clock, no Dagster and no delivery.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from recon_pipeline.core.periods import BillingMonth, contiguous_ranges

DEAD_MANS_SWITCH_MINUTES = 15
"""Three ticks of the schedule."""

MOST_CHANGES_TOLD = 20
"""In one message. There are a dozen checks: more can change at once only after a long time without a look."""

DEAD_MANS_SWITCH = "dead_mans_switch"
RECONCILE_RUNS = "reconcile_runs"


class Severity(StrEnum):
    """How bad a failure is, the worst last."""

    WARN = "warn"
    ERROR = "error"


REMINDER_HOURS = {Severity.ERROR: 4, Severity.WARN: 24}
"""A warning may be a fact that stays, such as duplicates in the log."""


class Turn(StrEnum):
    """What is told of a subject."""

    FAILING = "FAILING"
    WORSE = "WORSE"
    STILL_FAILING = "STILL FAILING"
    RESOLVED = "RESOLVED"


@dataclass(frozen=True)
class Observation:
    """What one evaluation says of a subject.

    Attributes:
        subject: The name of a check, or one of the names above.
        severity: How it fails, or None if it passes.
        months: Which billing months it is about; empty for what is not about months.
        is_partial: It looked at some customers only: enough to fail, not to pass.
        details: For a person: what was found, how much, what to do, where to look.
    """

    subject: str
    severity: Severity | None
    months: frozenset[BillingMonth] = frozenset()
    is_partial: bool = False
    details: str = ""


@dataclass(frozen=True)
class Alarm:
    """A subject that fails.

    Attributes:
        severity: The worst since it began.
        months: Those that have not passed since.
        details: Of the last evaluation that failed.
        failing_since: When it began.
        told_at: When somebody was last told.
    """

    subject: str
    severity: Severity
    months: frozenset[BillingMonth]
    details: str
    failing_since: datetime
    told_at: datetime


@dataclass(frozen=True)
class Change:
    """What is to be told: the turn that the alarm took."""

    turn: Turn
    alarm: Alarm


@dataclass(frozen=True)
class Message:
    """What is sent, of one severity: everything that changed at once."""

    severity: Severity
    is_resolved: bool
    title: str
    body: str


def observe(alarm: Alarm | None, seen: Observation, *, at: datetime) -> tuple[Alarm | None, Change | None]:
    """The alarm after an observation, and what is to be told of it."""
    if seen.severity is None:
        return _passed(alarm, seen)
    if alarm is None:
        began = Alarm(seen.subject, seen.severity, seen.months, seen.details, at, at)
        return began, Change(Turn.FAILING, began)
    severity = max(alarm.severity, seen.severity, key=list(Severity).index)
    now = replace(alarm, severity=severity, months=alarm.months | seen.months, details=seen.details)
    if severity == alarm.severity:
        return now, None
    worse = replace(now, told_at=at)
    return worse, Change(Turn.WORSE, worse)


def remind(alarm: Alarm, *, at: datetime) -> tuple[Alarm, Change | None]:
    """The alarm, and the reminder if it is time for one."""
    if at - alarm.told_at < timedelta(hours=REMINDER_HOURS[alarm.severity]):
        return alarm, None
    told = replace(alarm, told_at=at)
    return told, Change(Turn.STILL_FAILING, told)


def messages(changes: Sequence[Change], *, database: str) -> tuple[Message, ...]:
    """One message for each severity that anything changed in."""
    by_severity = {one: [change for change in changes if change.alarm.severity is one] for one in reversed(Severity)}
    return tuple(_message(severity, some, database) for severity, some in by_severity.items() if some)


def _passed(alarm: Alarm | None, seen: Observation) -> tuple[Alarm | None, Change | None]:
    if alarm is None or seen.is_partial:
        return alarm, None
    left = alarm.months - seen.months
    if left:
        return replace(alarm, months=left), None
    return None, Change(Turn.RESOLVED, alarm)


def _message(severity: Severity, changes: Sequence[Change], database: str) -> Message:
    turns = [turn for turn in Turn if any(change.turn is turn for change in changes)]
    subjects = {
        turn: dict.fromkeys(change.alarm.subject for change in changes if change.turn is turn) for turn in turns
    }
    told = "; ".join(f"{turn}: {', '.join(some)}" for turn, some in subjects.items())
    left_out = len(changes) - MOST_CHANGES_TOLD
    more = [f"Before that, {left_out} other changes; the UI shows all of them."] if left_out > 0 else []
    body = "\n\n".join([*map(_told, changes[-MOST_CHANGES_TOLD:]), *more, f"Database: {database}"])
    return Message(severity, turns == [Turn.RESOLVED], f"[recon {severity}] {told}", body)


def _told(change: Change) -> str:
    alarm = change.alarm
    months = ", ".join(
        first.key if first == last else f"{first.key} to {last.key}" for first, last in contiguous_ranges(alarm.months)
    )
    heading = f"{change.turn}: {alarm.subject}" + (f" ({months})" if months else "")
    since = f"failing since {alarm.failing_since:%Y-%m-%d %H:%M} UTC"
    if change.turn is Turn.RESOLVED:
        return f"{heading}, was {since}"
    return f"{heading}, {alarm.severity}, {since}\n{alarm.details}"
