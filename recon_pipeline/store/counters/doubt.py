"""Raised where a chunk finds out, after it has begun to write, that keys of it are doubtful."""

from collections import defaultdict
from collections.abc import Mapping


class InDoubtError(Exception):
    """Keys that a chunk works on turned out to be doubtful: all of it has to be taken back.

    Args:
        reasons: Why each of these keys is, by ordinal.
    """

    def __init__(self, reasons: Mapping[int, str]) -> None:
        super().__init__(reasons)
        self.reasons = reasons

    def by_reason(self) -> dict[str, list[int]]:
        """The ordinals of the keys, by the reason."""
        found = defaultdict[str, list[int]](list)
        for ordinal, reason in self.reasons.items():
            found[reason].append(ordinal)
        return dict(found)
