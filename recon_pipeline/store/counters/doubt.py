"""A doubt of a key, and what is raised where a chunk finds one out after it has begun to write."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Doubt:
    """Why the log does not say for certain what a counter should be.

    Attributes:
        name: By which it is kept in `doubts` of `recon.counter_drift` and `recon.open_key`.
        reason: For a person.
    """

    name: str | None
    reason: str


class InDoubtError(Exception):
    """Keys that a chunk works on turned out to be doubtful: all of it has to be taken back.

    Args:
        doubts: Why each of these keys is, by ordinal.
    """

    def __init__(self, doubts: Mapping[int, Doubt]) -> None:
        super().__init__(doubts)
        self.doubts = doubts

    def by_doubt(self) -> dict[Doubt, list[int]]:
        """The ordinals of the keys, by the doubt."""
        found = defaultdict[Doubt, list[int]](list)
        for ordinal, doubt in self.doubts.items():
            found[doubt].append(ordinal)
        return dict(found)
