"""The top of the page at `/`: one sentence for the engineer on call, and what to do.

Knows nothing of HTTP. It shows the record that `recon status` shows, and the alerts of what fails.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from recon_pipeline.core.alerts import DEAD_MANS_SWITCH, DEAD_MANS_SWITCH_MINUTES, Alarm, Severity
from recon_pipeline.core.approving import SEE_ALL
from recon_pipeline.core.periods import BillingMonth, contiguous_ranges, range_in_words
from recon_pipeline.faces.status import Status
from recon_pipeline.store.records.runs import RunRecord


class Tone(StrEnum):
    """How bad something is, the worst first."""

    BAD = "bad"
    WARN = "warn"
    NONE = "none"
    GOOD = "good"


TONES = {"clean": Tone.GOOD, "not_clean": Tone.BAD, "blocked": Tone.BAD, "failed": Tone.BAD, "paused": Tone.WARN}
"""Of the outcomes of runs; that of the others says neither."""


@dataclass(frozen=True)
class Notice:
    """Something that a person has to know.

    Attributes:
        title: In a few words.
        text: Lines; one that begins with `recon ` is a command, one with two spaces a row of a sample.
    """

    tone: Tone
    title: str
    text: str


@dataclass(frozen=True)
class Verdict:
    """The first sentence, and the one below it."""

    tone: Tone
    headline: str
    sentence: str


def notices(
    status: Status, *, last_success: datetime | None, first_run: datetime | None, now: datetime
) -> list[Notice]:
    """What a person has to know, the worst first.

    Args:
        status: What `recon status` shows.
        last_success: When a run over every customer last verified the current month.
        first_run: When the first run on this database began.
        now: By the same clock.
    """
    found = [*_notices(status, now), *_of_silence(status, last_success, first_run, now)]
    return sorted(found, key=lambda notice: list(Tone).index(notice.tone))


def verdict(status: Status, found: list[Notice], *, now: datetime) -> Verdict:
    """The first sentence of the page."""
    if found and found[0].tone is Tone.BAD:
        bad = [notice for notice in found if notice.tone is Tone.BAD]
        headline = found[0].title if len(bad) == 1 else f"{len(bad)} things fail"
        return Verdict(Tone.BAD, headline, "" if len(bad) == 1 else "; ".join(notice.title for notice in bad))
    if not status.runs:
        return Verdict(Tone.NONE, "No run was made on this database yet", "")
    if found:
        others = len(found) - 1
        more = f"And {others} more below." if others else ""
        return Verdict(Tone.WARN, found[0].title, more)
    if status.last_clean is None:
        return Verdict(Tone.NONE, "No run has ended yet that compared every counter", "")
    clean = status.last_clean
    months = months_of_run(clean)
    return Verdict(Tone.GOOD, "Every counter matches", f"{months}, in the run {ago(clean.started_at, now)}.")


def months_of_run(run: RunRecord) -> str:
    """The months of a run."""
    return range_in_words(BillingMonth.parse(run.first_partition), BillingMonth.parse(run.last_partition))


def ago(moment: datetime, now: datetime) -> str:
    """The time since then, in words."""
    seconds = max((now - moment).total_seconds(), 0.0)
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "a moment ago"


def _notices(status: Status, now: datetime) -> Iterator[Notice]:
    for alarm in status.failing:
        yield _of_alarm(alarm, now)
    yield from _of_latest_run(status, now)
    if not status.runs:
        yield Notice(
            Tone.WARN,
            "Nothing is reconciled yet",
            f"To compare every counter, without repairing any:\n{SEE_ALL}\nThe schedule starts runs by itself once "
            "Dagster's daemon runs.",
        )
    if status.pause is not None:
        text = f"Paused {status.pause}.\nCounters are compared, and none is repaired. To end the pause:\nrecon resume"
        yield Notice(Tone.WARN, "Repairs are paused", text)
    for usage in status.waiting:
        yield Notice(
            Tone.WARN,
            f"{usage} waits for its first run to be approved",
            "Unless every counter matches, nothing of it is repaired before. To see what would be, and the command "
            f"that approves it:\n{SEE_ALL}",
        )
    for one in status.undelivered:
        yield Notice(Tone.WARN, f"{one.messages:,} alerts are not delivered to {one.target_name}", one.why)


def _of_alarm(alarm: Alarm, now: datetime) -> Notice:
    months = ", ".join(range_in_words(first, last) for first, last in contiguous_ranges(alarm.months))
    return Notice(
        Tone.BAD if alarm.severity is Severity.ERROR else Tone.WARN,
        f"{alarm.subject} fails" + (f" ({months})" if months else ""),
        f"Since {alarm.failing_since:%Y-%m-%d %H:%M} UTC, {ago(alarm.failing_since, now)}.\n{alarm.details}",
    )


def _of_latest_run(status: Status, now: datetime) -> Iterator[Notice]:
    """The latest run over every customer, if it went wrong and no shown alert says why."""
    run = status.latest_decided
    if run is None or TONES.get(run.outcome) is not Tone.BAD:
        return
    if any(alarm.severity is Severity.ERROR and alarm.subject != DEAD_MANS_SWITCH for alarm in status.failing):
        return
    what = {
        "blocked": "The latest run was blocked: a person has to approve it",
        "failed": "The latest run failed",
        "not_clean": "The latest run left counters that do not match",
    }
    counts = f"{run.mismatch_count:,} keys still differed at its end. " if run.mismatch_count else ""
    text = f"{counts}It began {ago(run.started_at, now)}."
    yield Notice(
        Tone.BAD, what[run.outcome], f"{text}\n{run.error or 'Its page in Dagster names the check that failed.'}"
    )


def _of_silence(
    status: Status, last_success: datetime | None, first_run: datetime | None, now: datetime
) -> Iterator[Notice]:
    """The dead man's switch, which also says what is true before the first success."""
    if first_run is None or status.pause is not None:
        return
    if any(alarm.subject == DEAD_MANS_SWITCH for alarm in status.failing):
        return
    is_late = now - (last_success or first_run) > timedelta(minutes=DEAD_MANS_SWITCH_MINUTES)
    advice = "Drift is not detected. Whether schedule and daemon are alive:\nrecon doctor"
    if last_success is None:
        began = f"The first run on this database began {ago(first_run, now)}."
        wait = "The schedule starts one every 5 minutes while Dagster's daemon runs."
        tone = Tone.BAD if is_late else Tone.WARN
        yield Notice(tone, "No run has succeeded yet", f"{began} {advice if is_late else wait}")
    elif is_late:
        title = f"No run has succeeded for {DEAD_MANS_SWITCH_MINUTES} minutes"
        yield Notice(Tone.BAD, title, f"The last one ended {ago(last_success, now)}. {advice}")
