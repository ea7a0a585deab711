"""Histories of events that were lost, doubled, late, misplaced, erased or foreign: each difference has its class."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recon_pipeline.core.parity.classes import (
    LARGEST_EXACT,
    Circumstances,
    Compared,
    Difference,
    LogFigure,
    NamedRejection,
    classify,
)
from recon_pipeline.core.parity.narrowing import Sides
from recon_pipeline.core.parity.windows import Unit, Window, before, parts, to_minute

START = datetime(2025, 5, 1, 7, 30, 30, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
FINAL_AFTER = HOUR
LAG = 30 * MINUTE


@dataclass(frozen=True)
class Sent:
    """An event of a history: what the log has, and what the meter.

    Attributes:
        minute: Of its timestamp, from the beginning of the period.
        logged: Units in the log; 0 if it is not there.
        reported: Units in the meter.
        shifted: By so many minutes the meter has another timestamp.
        is_named: An error report names it.
        is_young: It reached the log within the lag.
    """

    minute: int
    logged: int
    reported: int
    shifted: int = 0
    is_named: bool = False
    is_young: bool = False

    @property
    def at(self) -> datetime:
        return to_minute(START) + self.minute * MINUTE

    @property
    def reported_at(self) -> datetime:
        return self.at + self.shifted * MINUTE


UNITS = st.sampled_from((1, 5, 7, LARGEST_EXACT))
MINUTES = st.integers(0, 4 * 24 * 60)
EVENT = st.builds(
    lambda minute, units, fate, shift, young: {
        "counted": Sent(minute, units, units),
        "lost": Sent(minute, units, 0),
        "on its way": Sent(minute, units, 0, is_young=young),
        "doubled": Sent(minute, units, 2 * units),
        "misplaced": Sent(minute, units, units, shifted=shift),
        "rejected": Sent(minute, units, 0, is_named=True),
        "erased or foreign": Sent(minute, 0, units),
    }[fate],
    MINUTES,
    UNITS,
    st.sampled_from(("counted", "lost", "on its way", "doubled", "misplaced", "rejected", "erased or foreign")),
    st.sampled_from((-1, 1, 60, -60, 3 * 24 * 60)),
    st.booleans(),
)


def found_by_product(history: Sequence[Sent], window: Window, now: datetime) -> tuple[Difference, ...]:
    def total(asked: Window) -> Decimal:
        assert asked.start < asked.end
        assert asked.start == to_minute(asked.start)
        return Decimal(sum(one.reported for one in history if one.reported_at in asked))

    def grouped(asked: Window, unit: Unit) -> Mapping[datetime, Decimal]:
        assert parts(asked, unit)[1] == asked, "aligned"
        return {piece.start: value for piece in asked.pieces(unit) if (value := total(piece))}

    def logged(windows: Sequence[Window]) -> Sequence[LogFigure]:
        return [figure(history, one) for one in windows]

    sides = Sides(total, grouped, logged)
    whole = sides.whole(window)
    if not whole.difference:
        return ()
    until = to_minute(now - LAG)
    settled = sides.part(whole, figure(history, before(window, until)), until)
    known = replace(circumstances(history, window, now), around=sides.around(settled, window, until))
    return classify(sides.found(whole, settled), known)


def figure(history: Sequence[Sent], window: Window) -> LogFigure:
    inside = [one for one in history if one.logged and one.at in window]
    settled = sum(one.logged for one in inside if not one.is_young)
    return LogFigure(Decimal(sum(one.logged for one in inside)), Decimal(settled), len(inside))


def circumstances(history: Sequence[Sent], window: Window, now: datetime) -> Circumstances:
    length = window.end - window.start
    settled_until = to_minute(now - LAG)
    around = (
        Window(window.start, min(window.end, settled_until)),
        Window(window.start - length, window.start),
        Window(window.end, min(window.end + length, settled_until)),
    )
    return Circumstances(
        now=now,
        settled_before=now - LAG,
        final_at=window.end + FINAL_AFTER,
        rejections=tuple(NamedRejection("id", one.at, "invalid") for one in history if one.is_named),
        around=tuple(Decimal(difference(history, one)) for one in around),
    )


def difference(history: Sequence[Sent], window: Window) -> int:
    return sum(one.reported for one in history if one.reported_at in window) - sum(
        one.logged for one in history if one.at in window
    )


def expected(history: Sequence[Sent], window: Window, now: datetime) -> dict[datetime, str]:
    """The class of each hour that differs, in plain words of the model alone."""
    if not difference(history, window):
        return {}
    young = sum(one.logged for one in history if one.is_young and one.at in window)
    is_equal_before = not difference(history, Window(window.start, min(window.end, to_minute(now - LAG))))
    if is_equal_before and -young <= difference(history, window) <= 0:
        return {window.start: "not_comparable" if is_large(history, window) else "lagging"}
    hours = list[Window]()
    at = window.start
    while at < window.end:
        until = min(at.replace(minute=0) + HOUR, window.end)
        hours.append(Window(at, until))
        at = until
    day_differs = {
        day: difference(history, Window(max(window.start, day), min(window.end, day + timedelta(days=1)))) != 0
        for day in {hour.start.replace(hour=0, minute=0) for hour in hours}
    }
    differing = {
        hour.start: (hour, difference(history, hour))
        for hour in hours
        if difference(history, hour) and day_differs[hour.start.replace(hour=0, minute=0)]
    }
    known = circumstances(history, window, now)
    return {start: in_words(history, hour, units, differing, known) for start, (hour, units) in differing.items()}


def level(hours: list[tuple[Window, int]]) -> list[list[Window]]:
    """Of the hours that differ, those that follow each other without a gap and add up to nothing, from the first on."""
    if not hours:
        return []
    for count in range(2, len(hours) + 1):
        run = hours[:count]
        if any(earlier.end != later.start for (earlier, _), (later, _) in itertools.pairwise(run)):
            break
        if sum(units for _, units in run) == 0:
            return [[hour for hour, _ in run], *level(hours[count:])]
    return level(hours[1:])


def is_large(history: Sequence[Sent], window: Window) -> bool:
    logged = sum(one.logged for one in history if one.at in window)
    return max(logged, logged + difference(history, window)) > 2**53


def in_words(
    history: Sequence[Sent],
    hour: Window,
    units: int,
    differing: dict[datetime, tuple[Window, int]],
    known: Circumstances,
) -> str:
    if is_large(history, hour):
        return "not_comparable"
    young = sum(one.logged for one in history if one.is_young and one.at in hour)
    if hour.end > known.now - LAG or -young <= units <= 0:
        return "lagging"
    if units < 0 and any(one.is_named and one.at in hour for one in history):
        return "rejected"
    if sum(known.around) == 0 or any(hour in run for run in level(sorted(differing.values()))):
        return "misplaced"
    if units > 0:
        return "over_reported"
    if known.now - hour.start >= timedelta(days=35):
        return "expired"
    return "missing" if known.now < known.final_at else "finalized"


@settings(max_examples=150, deadline=None)
@given(
    history=st.lists(EVENT, max_size=6),
    length_minutes=st.integers(1, 4 * 24 * 60),
    later_minutes=st.sampled_from((0, 20, 59, 60, 61, 3_000, 34 * 1440, 35 * 1440, 36 * 1440)),
)
@example([Sent(50, 5, 0), Sent(200, 5, 10)], 1000, 61)
def test_every_difference_has_the_class_that_a_plain_model_gives_it(
    history: list[Sent], length_minutes: int, later_minutes: int
) -> None:
    window = Window(to_minute(START), to_minute(START) + length_minutes * MINUTE)
    now = window.end + later_minutes * MINUTE
    found = {one.compared.window.start: str(one.kind) for one in found_by_product(history, window, now)}
    assert found == expected(history, window, now)


def test_a_window_is_cut_into_whole_units_and_what_is_left_at_both_ends() -> None:
    window = Window(datetime(2025, 5, 1, 7, 30, tzinfo=UTC), datetime(2025, 5, 3, 0, 0, tzinfo=UTC))
    before, days, after = parts(window, "day")
    assert (before.end, days.end, bool(after)) == (datetime(2025, 5, 2, tzinfo=UTC), window.end, False)
    assert [len(one.pieces("hour")) for one in parts(before, "hour")] == [0, 16, 0]
    within = Window(window.start, window.start + 5 * MINUTE)
    assert [bool(one) for one in parts(within, "hour")] == [True, False, False]


@pytest.mark.parametrize(
    ("differences", "classes"),
    [
        ((-5, -3, 8), "misplaced misplaced misplaced"),
        ((-5, 5, -5), "misplaced misplaced missing"),
        ((-2, -5, 5), "missing misplaced misplaced"),
        ((-5, 0, 5), "missing over_reported"),
        ((-5, 5, 5, -5), "misplaced misplaced misplaced misplaced"),
    ],
)
def test_hours_that_touch_and_add_up_to_nothing_are_misplaced_and_each_explains_only_one_other(
    differences: tuple[int, ...], classes: str
) -> None:
    start = datetime(2025, 5, 2, 7, tzinfo=UTC)
    known = Circumstances(start + 10 * HOUR, start + 9 * HOUR, start + 20 * HOUR, around=(Decimal(1),))
    log = LogFigure(Decimal(10), Decimal(10), 1)
    found = [
        Compared(Window(start + n * HOUR, start + (n + 1) * HOUR), log, Decimal(10 + one))
        for n, one in enumerate(differences)
        if one
    ]
    assert " ".join(one.kind for one in classify(found, known)) == classes


def test_a_surplus_says_whether_the_log_has_nothing_there_or_everything_was_sent_again() -> None:
    hour = Window(datetime(2025, 5, 2, 7, tzinfo=UTC), datetime(2025, 5, 2, 8, tzinfo=UTC))
    known = Circumstances(hour.end + HOUR, hour.end, hour.end + 2 * HOUR)

    def evidence(units: int, reported: int) -> str:
        log = LogFigure(Decimal(units), Decimal(units), int(units != 0))
        (one,) = classify([Compared(hour, log, Decimal(reported))], known)
        assert str(one.kind) == "over_reported"
        return one.evidence.partition(";")[0]

    assert evidence(0, 5) == "the log has no event here: erased from it, or sent by another program"
    assert evidence(5, 10) == "Stripe has 2 times what the log has: sent again"
    assert evidence(10, 10_000) == "Stripe has 1,000 times what the log has: sent again"
    assert evidence(-5, 0) == "events were sent again, erased from the log, or sent by another program"
    assert evidence(5, 7) == "events were sent again, erased from the log, or sent by another program"
