"""The shortest schedule that still fails: things that need not be done go first, then turns that need not be taken."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from recon_pipeline_tests.simulation.plan import Plan
from recon_pipeline_tests.simulation.simulation import Played

Kept = Mapping[str, Sequence[int]]
Replay = Callable[[Plan, Sequence[str]], Played]


@dataclass(frozen=True)
class Shrunk:
    """What is left of a failure.

    Attributes:
        kept: By actor, which of its things.
        decided: Who goes when.
        violation: What is wrong in it.
    """

    kept: Kept
    decided: Sequence[str]
    violation: str


def everything(plan: Plan) -> dict[str, list[int]]:
    """All that a plan does."""
    return {name: list(range(len(ops))) for name, ops in plan.ops.items()}


def shrink(plan: Plan, failed: Played, replay: Replay, *, seconds: float = 120) -> Shrunk:
    """Make a failure smaller for so long.

    Args:
        plan: Whole.
        failed: What became of it.
        replay: Plays a plan by decisions.
        seconds: The longest that it may take, but for the last attempt.
    """
    assert failed.violation is not None
    best = Shrunk(everything(plan), failed.decided, failed.violation)
    give_up_at = time.monotonic() + seconds
    progress = True
    while progress:
        progress = False
        for kept, decided in _smaller(best):
            if time.monotonic() > give_up_at:
                return best
            played = replay(plan.only(kept), decided)
            if played.violation is not None and _size(kept, played.decided) < _size(best.kept, best.decided):
                best, progress = Shrunk(kept, played.decided, played.violation), True
                break
    return best


def _smaller(of: Shrunk) -> Iterator[tuple[Kept, Sequence[str]]]:
    """Attempts, the boldest first."""
    for name, indexes in of.kept.items():
        if indexes:
            yield {**of.kept, name: []}, of.decided
    for name, indexes in of.kept.items():
        for index in reversed(indexes if len(indexes) > 1 else ()):
            yield {**of.kept, name: [other for other in indexes if other != index]}, of.decided
    groups = [list(turns) for _, turns in groupby(of.decided)]
    length = len(groups) // 2
    while length >= 1:
        for first in range(0, len(groups), length):
            left = groups[:first] + groups[first + length :]
            yield of.kept, [turn for group in left for turn in group]
        length //= 2


def _size(kept: Kept, decided: Sequence[str]) -> tuple[int, int, int]:
    return sum(map(len, kept.values())), len(list(groupby(decided))), len(decided)
