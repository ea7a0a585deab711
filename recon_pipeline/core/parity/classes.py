"""The class of a difference between log and meter: decided from figures alone, in one order, with the evidence.

Invariant: every difference has exactly one class, that of the first rule that holds. Knows no clock and no provider:
limits are Stripe's (API reference, Create a meter event; Billing, settings of invoices).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

from recon_pipeline.core.exact import EXACT, total
from recon_pipeline.core.parity.windows import Window

ACCEPTED_FOR = timedelta(days=35)
"""How old the timestamp of an event may be that Stripe accepts."""

LARGEST_EXACT = 2**53
"""From here on a JSON number, which Stripe computes as a float, need not be the number that was meant."""


class DifferenceClass(StrEnum):
    """What a difference is, in the order in which it is decided."""

    NOT_COMPARABLE = "not_comparable"
    LAGGING = "lagging"
    REJECTED = "rejected"
    MISPLACED = "misplaced"
    MISSING = "missing"
    EXPIRED = "expired"
    OVER_REPORTED = "over_reported"
    FINALIZED = "finalized"


MEANING: dict[DifferenceClass, str] = {
    DifferenceClass.NOT_COMPARABLE: "a figure is too large to be exact; compare by hand",
    DifferenceClass.LAGGING: "younger than RECON_STRIPE_LAG_MINUTES; compared again",
    DifferenceClass.REJECTED: "Stripe refused events; correct the cause, send them anew before the invoice is final",
    DifferenceClass.MISPLACED: "Stripe has it in a neighbouring window; correct which timestamp is sent",
    DifferenceClass.MISSING: "Stripe never got it; send it before the invoice is final",
    DifferenceClass.EXPIRED: "too old for Stripe to accept; add an invoice item",
    DifferenceClass.OVER_REPORTED: "Stripe has more than the log; find the sender, and credit the customer",
    DifferenceClass.FINALIZED: "missing, and the invoice is out; add it to the next one",
}


@dataclass(frozen=True)
class LogFigure:
    """What the log says was sent within a window.

    Attributes:
        units: In all.
        settled_units: Without events that are younger than the lag.
        event_count: How many events.
    """

    units: Decimal
    settled_units: Decimal
    event_count: int

    def lies_between(self, reported: Decimal) -> bool:
        """Whether a sum of the meter lies between what is settled and all."""
        least, most = sorted((self.settled_units, self.units))
        return least <= reported <= most


def added(figures: Sequence[LogFigure]) -> LogFigure:
    """What one customer or several sent together."""
    return LogFigure(
        units=total(one.units for one in figures),
        settled_units=total(one.settled_units for one in figures),
        event_count=sum(one.event_count for one in figures),
    )


@dataclass(frozen=True)
class Compared:
    """Both sides of one window."""

    window: Window
    log: LogFigure
    reported: Decimal

    @property
    def difference(self) -> Decimal:
        """By how much the meter has more, exactly."""
        return EXACT.subtract(self.reported, self.log.units)


@dataclass(frozen=True)
class NamedRejection:
    """An event of the log that an error report of the meter names.

    Attributes:
        identifier: Of the event.
        sent_at: The timestamp with which it was sent.
        code: Why it was refused.
    """

    identifier: str
    sent_at: datetime
    code: str


@dataclass(frozen=True)
class Circumstances:
    """What decides besides the figures of a window.

    Attributes:
        now: When it was compared.
        settled_before: What is younger may still be on its way.
        final_at: When the invoice of the period is final.
        rejections: The customer's events that error reports name.
        around: The differences of the whole window of the key, and of those before and after it.
    """

    now: datetime
    settled_before: datetime
    final_at: datetime
    rejections: tuple[NamedRejection, ...] = ()
    around: tuple[Decimal, ...] = ()


@dataclass(frozen=True)
class Difference:
    """One difference with its class.

    Attributes:
        compared: Where, and both figures.
        kind: Its class.
        evidence: What shows it, in a sentence.
    """

    compared: Compared
    kind: DifferenceClass
    evidence: str


def classify(found: Sequence[Compared], known: Circumstances) -> tuple[Difference, ...]:
    """The class of each difference of one key.

    Args:
        found: The windows in which both sides differ, in order of time.
        known: What decides besides them.
    """
    level = tuple(_level_runs(found))
    return tuple(_classified(one, level, known) for one in found)


def is_comparable(figure: Decimal) -> bool:
    """Whether a sum is exact as a JSON number too."""
    return figure.is_finite() and abs(figure) <= LARGEST_EXACT


def _classified(one: Compared, level: Sequence[Window], known: Circumstances) -> Difference:
    for kind, evidence in _rules(one, level, known):
        if evidence:
            return Difference(one, kind, evidence)
    raise AssertionError(f"no class for {one}")


def _rules(one: Compared, level: Sequence[Window], known: Circumstances) -> tuple[tuple[DifferenceClass, str], ...]:
    lacks, has_more = one.difference < 0, one.difference > 0
    is_out = known.now >= known.final_at
    is_accepted = one.window.start > known.now - ACCEPTED_FOR
    in_time = lacks and is_accepted and not is_out
    final = f"the invoice {'was' if is_out else 'is'} final at {known.final_at:%Y-%m-%d %H:%M} UTC"
    return (
        (DifferenceClass.NOT_COMPARABLE, _not_exact(one)),
        (DifferenceClass.LAGGING, _young(one, known)),
        (DifferenceClass.REJECTED, _refused(one, known, final) if lacks else ""),
        (DifferenceClass.MISPLACED, _neighbour(one, level, known)),
        (
            DifferenceClass.MISSING,
            f"{final}; Stripe accepts the timestamps" if in_time else "",
        ),
        (DifferenceClass.EXPIRED, f"older than {ACCEPTED_FOR.days} days; {final}" if lacks and not is_accepted else ""),
        (DifferenceClass.OVER_REPORTED, f"{_surplus(one)}; {final}" if has_more else ""),
        (DifferenceClass.FINALIZED, final),
    )


def _not_exact(one: Compared) -> str:
    if is_comparable(one.reported) and is_comparable(one.log.units):
        return ""
    return f"more than 2^53 = {LARGEST_EXACT:,}, or no number"


def _young(one: Compared, known: Circumstances) -> str:
    since = f"after {known.settled_before:%Y-%m-%d %H:%M} UTC"
    if one.window.end > known.settled_before:
        return since
    if one.log.lies_between(one.reported):
        return f"{EXACT.subtract(one.log.units, one.log.settled_units):,f} units reached the log {since}"
    return ""


def _refused(one: Compared, known: Circumstances, final: str) -> str:
    named = [rejection for rejection in known.rejections if rejection.sent_at in one.window]
    if not named:
        return ""
    more = f" and {len(named) - 1:,} more" if len(named) > 1 else ""
    return f"{named[0].code}: {named[0].identifier}{more}; {final}"


def _level_runs(found: Sequence[Compared]) -> Iterator[Window]:
    """The windows of differences that touch and add up to nothing, each in one of them: nothing is found twice."""
    begin = 0
    while begin < len(found):
        sum_so_far, end = found[begin].difference, begin + 1
        while sum_so_far and end < len(found) and found[end].window.start == found[end - 1].window.end:
            sum_so_far, end = EXACT.add(sum_so_far, found[end].difference), end + 1
        if sum_so_far:
            begin += 1
            continue
        yield Window(found[begin].window.start, found[end - 1].window.end)
        begin = end


def _neighbour(one: Compared, level: Sequence[Window], known: Circumstances) -> str:
    if known.around and sum(known.around) == 0:
        return "with the windows before and after it, both sides are equal"
    for run in level:
        if one.window.start in run:
            return f"from {run.start:%Y-%m-%d %H:%M} to {run.end:%Y-%m-%d %H:%M} UTC together, both sides are equal"
    return ""


def _surplus(one: Compared) -> str:
    if one.log.event_count == 0:
        return "the log has no event here: erased from it, or sent by another program"
    times = Fraction(one.reported) / Fraction(one.log.units) if one.log.units > 0 else Fraction(0)
    if times > 1 and times.denominator == 1:
        return f"Stripe has {times.numerator:,} times what the log has: sent again"
    return "events were sent again, erased from the log, or sent by another program"
