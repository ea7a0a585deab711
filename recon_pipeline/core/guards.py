"""Blast radius: whether a run may repair the drift it found without an approval.

Wrong input (a truncated log, a wrong scope, a broken import) looks like an enormous drift. A repair beyond these
budgets is blocked before its first write, and so is the first repair of a metered usage. Budgets are for a day: they
include what runs repaired in the last 24 hours without an approval; otherwise many runs, each below a budget, could
repair every counter from a log that loses events.
Shares have a minimum, so that a small database with three wrong counters is not blocked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recon_pipeline.core.errors import one_line

SHARE_FLOOR_KEYS = 50
"""Below this many keys a share says nothing; only the absolute budgets apply."""


@dataclass(frozen=True)
class Budgets:
    """The largest change in 24 hours that needs no approval.

    Attributes:
        max_repairs: Keys repaired.
        max_repair_share: Repaired keys over compared keys, 0 to 1.
        max_orphan_share: Zeroed counters over compared keys, 0 to 1.
        max_over_quota_transitions: Customers' keys that may be pushed over their limit.
        max_events_left: Events that left the log, for which counters may be lowered; others are left alone.
    """

    max_repairs: int = 10_000
    max_repair_share: float = 0.10
    max_orphan_share: float = 0.02
    max_over_quota_transitions: int = 100
    max_events_left: int = 0


@dataclass(frozen=True)
class DriftSummary:
    """What a comparison found, in keys unless said otherwise.

    Attributes:
        counters_scanned: Counter rows compared.
        missing: Keys with events and no counter row.
        under: Counter below its event sum.
        over: Counter above its event sum.
        orphan: Counter not 0 without events.
        over_quota_transitions: Repairs that would reach or pass the limit from below.
        under_quota_transitions: Repairs that would fall below the limit.
        held: Drifted keys under a hold; they are not repaired.
        doubtful: Drifted keys of which the log does not say for certain what they should be; nor are they.
        approved: Keys whose counters may change for events that left the log, as a person has approved.
        excused_orphans: Orphans that are held, doubtful or approved.
        usage_missed: Units of usage that counters lack (missing and under).
        usage_excess: Units of usage that counters have too many (over and orphan).
    """

    counters_scanned: int
    missing: int = 0
    under: int = 0
    over: int = 0
    orphan: int = 0
    over_quota_transitions: int = 0
    under_quota_transitions: int = 0
    held: int = 0
    doubtful: int = 0
    approved: int = 0
    excused_orphans: int = 0
    usage_missed: int = 0
    usage_excess: int = 0

    @property
    def drift_count(self) -> int:
        """Drifted keys of all kinds."""
        return self.missing + self.under + self.over + self.orphan

    @property
    def repairs(self) -> int:
        """Keys that a repair would change."""
        return self.drift_count - self.held - self.doubtful

    @property
    def keys_compared(self) -> int:
        """Counter rows, and the keys that have events but no row."""
        return self.counters_scanned + self.missing

    @property
    def by_kind(self) -> dict[str, int]:
        """Drifted keys by kind; all four kinds, also those that are 0."""
        return {"missing": self.missing, "under": self.under, "over": self.over, "orphan": self.orphan}


@dataclass(frozen=True)
class Today:
    """What other runs repaired in the last 24 hours without an approval and nobody has undone, in distinct keys.

    Attributes:
        repairs: In all months.
        over_quota_transitions: Repairs that reached or passed the limit, in all months.
        repairs_of_extent: In the months, and of the customers, that a run covers.
        orphans_of_extent: Likewise, counters that were set to 0.
    """

    repairs: int = 0
    over_quota_transitions: int = 0
    repairs_of_extent: int = 0
    orphans_of_extent: int = 0


NOTHING_TODAY = Today()


@dataclass(frozen=True)
class Breach:
    """One budget that a repair would exceed.

    Attributes:
        variable: The environment variable that sets the budget; for a first run, `first run of` and the metered usage.
        found: What the run would do.
        earlier: What other runs did in the last 24 hours.
        allowed: What the budget allows for both together; for shares, in keys.
        sentence: All of this as text.
    """

    variable: str
    found: int
    earlier: int
    allowed: int
    sentence: str


def breaches(summary: DriftSummary, budgets: Budgets, today: Today = NOTHING_TODAY) -> tuple[Breach, ...]:
    """The budgets that repairing this drift would exceed; empty if the repair is allowed."""
    keys, floor = summary.keys_compared, f"at least {SHARE_FLOOR_KEYS}"
    repairs, orphans = summary.repairs - summary.approved, summary.orphan - summary.excused_orphans
    measures = (
        ("RECON_MAX_REPAIRS", repairs, today.repairs, budgets.max_repairs, "counters would be repaired"),
        (
            "RECON_MAX_REPAIR_SHARE",
            repairs,
            today.repairs_of_extent,
            max(SHARE_FLOOR_KEYS, int(budgets.max_repair_share * keys)),
            f"counters would be repaired (share {budgets.max_repair_share:g} of {keys:,} keys, {floor})",
        ),
        (
            "RECON_MAX_ORPHAN_SHARE",
            orphans,
            today.orphans_of_extent,
            max(SHARE_FLOOR_KEYS, int(budgets.max_orphan_share * keys)),
            f"orphaned counters would be zeroed (share {budgets.max_orphan_share:g} of {keys:,} keys, {floor})",
        ),
        (
            "RECON_MAX_OVER_QUOTA_TRANSITIONS",
            summary.over_quota_transitions,
            today.over_quota_transitions,
            budgets.max_over_quota_transitions,
            "customers would be pushed over their quota",
        ),
    )
    return tuple(
        Breach(variable, found, earlier, allowed, _sentence(variable, found, earlier, allowed, doing))
        for variable, found, earlier, allowed, doing in measures
        if found and found + earlier > allowed
    )


def first_run_breach(
    usage: str, by_kind: Mapping[str, int], largest: Sequence[str] = (), *, before: str | None = None
) -> Breach:
    """The breach of a metered usage of which no repair was ever accepted: no counter changes without an approval.

    Args:
        usage: As it is written in `RECON_SCOPE`.
        by_kind: The keys that would be repaired, by kind.
        largest: The largest differences, a few words each.
        before: Only of the months before this one no repair was ever accepted.
    """
    found = sum(by_kind.values())
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in by_kind.items())
    counters = "counter" if found == 1 else "counters"
    months = f" in months before {before}" if before else ""
    sentence = f"this is the first run that may repair {usage}{months}: {found:,} {counters} would be changed ({kinds})"
    if largest:
        sentence += f", the largest: {', '.join(map(one_line, largest))}"
    return Breach(f"first run of {usage}", found, 0, 0, sentence)


def beyond(exceeded: Sequence[Breach], shown: Mapping[str, int]) -> tuple[Breach, ...]:
    """The breaches that exceed the figures that a person was shown, whatever other runs repaired that day.

    Args:
        exceeded: Budgets that a repair would exceed.
        shown: By the variable of the budget, the figure that was shown.
    """
    return tuple(breach for breach in exceeded if breach.found > shown[breach.variable])


def _sentence(variable: str, found: int, earlier: int, allowed: int, doing: str) -> str:
    before = f", and {earlier:,} were by runs of the last 24 hours" if earlier else ""
    return f"{found:,} {doing}{before}; {variable} allows {allowed:,}"
