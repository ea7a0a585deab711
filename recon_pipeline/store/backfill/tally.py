"""What became of the rows of a backfill, as its record counts them."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Tally:
    """The outcomes of rows; each row has exactly one.

    Attributes:
        inserted: New in the log (or would be, in a dry run).
        duplicate: In the log already, with the same content.
        conflict: In the log already, with another content; that one stays.
        rejected: No event, with reasons.
        partitions: Billing months of what is in the log.
        skipped: Skipped by the mapping, and so not among the rows read.
        inserted_of_months: How many are new, by billing month.
    """

    inserted: int = 0
    duplicate: int = 0
    conflict: int = 0
    rejected: int = 0
    partitions: frozenset[str] = frozenset()
    skipped: int = 0
    inserted_of_months: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def rows_read(self) -> int:
        """All of them."""
        return self.inserted + self.duplicate + self.conflict + self.rejected
