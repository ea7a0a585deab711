"""When an alert is sent, and with which text.

Invariant: a subject (a check, runs, the dead man's switch) causes one message when it starts to fail, one when it gets
worse and one when it passes again; while it fails, another after `REMINDER_HOURS`. A subject that failed for some
billing months passes again when all of them have passed, in any runs. Knows no clock, no Dagster and no delivery.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from recon_pipeline.core.periods import BillingMonth, contiguous_ranges, range_in_words

DEAD_MANS_SWITCH_MINUTES = 15
"""Three ticks of the schedule."""

MOST_CHANGES_IN_MESSAGE = 20
"""There are a dozen checks: more can change at once only after a long time without an evaluation."""

DEAD_MANS_SWITCH = "dead_mans_switch"
RECONCILE_RUNS = "reconcile_runs"


class Severity(StrEnum):
    """How bad a failure is, the worst last."""

    WARN = "warn"
    ERROR = "error"


REMINDER_HOURS = {Severity.ERROR: 4, Severity.WARN: 24}
"""A warning may be permanent, such as duplicates in the log."""


class Turn(StrEnum):
    """What a message says of a subject."""

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
        months: Which billing months it is about; empty if it is not about months.
        is_partial: It covered some customers only: enough to fail, not to pass.
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
        failing_since: When it started to fail.
        told_at: When the last message about it was written.
    """

    subject: str
    severity: Severity
    months: frozenset[BillingMonth]
    details: str
    failing_since: datetime
    told_at: datetime

    def left_out(self, *, before: BillingMonth) -> Observation | None:
        """What it means for it that no run compares the months before one any more: these fail no longer."""
        months = frozenset(month for month in self.months if month < before)
        return Observation(self.subject, None, months) if months else None


@dataclass(frozen=True)
class Change:
    """A change of an alarm, which becomes part of a message."""

    turn: Turn
    alarm: Alarm


@dataclass(frozen=True)
class Message:
    """What is sent, of one severity: everything that changed at once.

    Attributes:
        is_resolved: Nothing in it fails.
        body: Paragraphs; a link is a line of its own, and a line that begins with two spaces is a row of a sample.
        failing: For a service that keeps incidents: the name of each that is open after it.
        resolved: Of each that is over.
    """

    severity: Severity
    is_resolved: bool
    title: str
    body: str
    failing: tuple[str, ...]
    resolved: tuple[str, ...]


def observe(alarm: Alarm | None, seen: Observation, *, at: datetime) -> tuple[Alarm | None, Change | None]:
    """The alarm after an observation, and its change, if there is one."""
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
    reminded = replace(alarm, told_at=at)
    return reminded, Change(Turn.STILL_FAILING, reminded)


def incident(subject: str, database: str) -> str:
    """The name of what fails, the same from the first message about it to the last."""
    return f"{subject} of {database}"


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
    summary = "; ".join(f"{turn}: {', '.join(some)}" for turn, some in subjects.items())
    left_out = len(changes) - MOST_CHANGES_IN_MESSAGE
    more = [f"Before that, {left_out} other changes; the UI shows all of them."] if left_out > 0 else []
    body = "\n\n".join([*map(_text, changes[-MOST_CHANGES_IN_MESSAGE:]), *more, f"Database: {database}"])
    last = {incident(change.alarm.subject, database): change.turn for change in changes}
    return Message(
        severity,
        turns == [Turn.RESOLVED],
        f"[recon {severity}] {summary}",
        body,
        failing=tuple(name for name, turn in last.items() if turn is not Turn.RESOLVED),
        resolved=tuple(name for name, turn in last.items() if turn is Turn.RESOLVED),
    )


def _text(change: Change) -> str:
    alarm = change.alarm
    months = ", ".join(range_in_words(first, last) for first, last in contiguous_ranges(alarm.months))
    heading = f"{change.turn}: {alarm.subject}" + (f" ({months})" if months else "")
    since = f"failing since {alarm.failing_since:%Y-%m-%d %H:%M} UTC"
    if change.turn is Turn.RESOLVED:
        return f"{heading}, was {since}"
    return f"{heading}, {alarm.severity}, {since}\n{alarm.details}"
