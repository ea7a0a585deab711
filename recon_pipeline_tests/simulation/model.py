"""What must be true of counters, log and ledger, in plain Python.

Knows no database and no clock. Changes come in whole transactions, in the order in which they commit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

Key = tuple[str, datetime, datetime]
"""Customer, start and end of the billing period."""


class ViolationError(AssertionError):
    """Something that must never be true was true."""


@dataclass(frozen=True)
class Event:
    """One row of the log.

    Attributes:
        request_id: Given by the application.
        key: What it counts for.
        quantity: None and numbers up to 0 are invalid.
        arrived: Sorts events by arrival.
        is_young: It may be that its increment is still on its way.
    """

    request_id: str
    key: Key
    quantity: int | None
    arrived: tuple[Any, ...] = ()
    is_young: bool = True


@dataclass(frozen=True)
class Sum:
    """The event sum of one key: of the events that are old enough, and of all that are visible."""

    settled: int = 0
    visible: int = 0


@dataclass(frozen=True)
class Drifted:
    """One key whose counter is not what the log says."""

    usage_count: int | None
    settled: int
    visible: int


@dataclass(frozen=True)
class Repair:
    """One row of the ledger."""

    run_id: str
    key: Key
    before: int | None
    after: int


@dataclass(frozen=True)
class Added:
    """An increment, or what a saboteur did to a counter."""

    key: Key
    quantity: int


@dataclass(frozen=True)
class Deleted:
    """A counter that is gone."""

    key: Key


@dataclass(frozen=True)
class Erased:
    """An event that is gone."""

    id: str


@dataclass(frozen=True)
class Inserted:
    """An event that is new, or new in its values."""

    id: str
    event: Event


Change = Added | Deleted | Erased | Inserted


@dataclass
class Model:
    """The committed state.

    Attributes:
        settles: Events are young until the clock has moved on.
        step: Grows with every decision of the schedule.
    """

    settles: bool
    step: int = 0
    events: dict[str, Event] = field(default_factory=dict)
    counters: dict[Key, int] = field(default_factory=dict)
    repairs: int = 0
    _settled: dict[Key, list[tuple[int, int]]] = field(default_factory=dict)
    _apart: dict[Key, int] = field(default_factory=dict)

    def sums(self) -> dict[Key, Sum]:
        """The event sum of each key that has one: the first valid event of each request id counts."""
        sums: dict[Key, Sum] = {}
        seen: set[str] = set()
        for event in sorted(self.events.values(), key=lambda event: event.arrived):
            quantity = event.quantity or 0
            if quantity <= 0 or event.request_id in seen:
                continue
            seen.add(event.request_id)
            before = sums.get(event.key, Sum())
            settled = 0 if self.settles and event.is_young else quantity
            sums[event.key] = Sum(before.settled + settled, before.visible + quantity)
        return sums

    def drift(self) -> dict[Key, Drifted]:
        """The keys whose counter lies outside of what the log allows."""
        sums = self.sums()
        found = {}
        for key in {*sums, *self.counters}:
            total, counted = sums.get(key, Sum()), self.counters.get(key)
            if not total.settled <= (counted or 0) <= total.visible:
                found[key] = Drifted(counted, total.settled, total.visible)
        return found

    def commit(self, changes: Iterable[Change]) -> None:
        """What a transaction of the application or of the saboteur did."""
        before = self.sums()
        added: dict[Key, int] = {}
        for change in changes:
            match change:
                case Inserted(id, event):
                    self.events[id] = event
                case Erased(id):
                    del self.events[id]
                case Deleted(key):
                    self.counters.pop(key, None)
                case Added(key, quantity):
                    self.counters[key] = self.counters.get(key, 0) + quantity
                    added[key] = added.get(key, 0) + quantity
        self._remember(before, added)

    def grow_older(self) -> None:
        """So much time passes that every increment has arrived."""
        before = self.sums()
        self.events = {id: replace(event, is_young=False) for id, event in self.events.items()}
        self._remember(before, {})

    def commit_of_product(
        self, counters: Mapping[Key, int], repairs: Iterable[Repair], since: int, *, is_blocked: bool = False
    ) -> None:
        """What a transaction of the product did.

        Args:
            counters: As they are now.
            repairs: The new rows of the ledger.
            since: The step in which its run compared.
            is_blocked: The run may not repair anything.

        Raises:
            ViolationError: It did anything but repairs to what the log says, each with its row in the ledger.
        """
        expected = dict(self.counters)
        for repair in repairs:
            if is_blocked:
                raise ViolationError(f"a run that a guard had blocked repaired {repair}")
            if expected.get(repair.key) != repair.before:
                raise ViolationError(f"{repair}: the counter was {expected.get(repair.key)} before")
            self._require_right(repair, since)
            expected[repair.key] = repair.after
            self.repairs += 1
        if expected != dict(counters):
            raise ViolationError(f"counters and ledger part: {_difference(expected, counters)}")
        self.counters = dict(counters)

    def require_counters(self, counters: Mapping[Key, int], ledger_rows: int) -> None:
        """Hold the database to the model.

        Raises:
            ViolationError: A counter is not the application's increments, plus the ledger, plus sabotage.
        """
        if dict(counters) != self.counters:
            raise ViolationError(f"a counter changed without a cause: {_difference(self.counters, counters)}")
        if ledger_rows != self.repairs:
            raise ViolationError(f"the ledger has {ledger_rows} rows, {self.repairs} repairs were made")

    def _require_right(self, repair: Repair, since: int) -> None:
        """A repaired counter is what the log says now, unless the log changed apart from the counter meanwhile."""
        now = self.sums().get(repair.key, Sum()).settled
        right = {now}
        if self._apart.get(repair.key, -1) >= since:
            right |= {settled for step, settled in self._settled.get(repair.key, []) if step >= since}
        if repair.after not in right:
            raise ViolationError(f"{repair} is wrong: the log says {' or '.join(map(str, sorted(right)))}")

    def _remember(self, before: Mapping[Key, Sum], added: Mapping[Key, int]) -> None:
        after = self.sums()
        for key in {*before, *after}:
            was, now = before.get(key, Sum()), after.get(key, Sum())
            if was != now:
                # What it was until now belongs to this step too: a snapshot may be as old as that.
                self._settled.setdefault(key, []).extend([(self.step, was.settled), (self.step, now.settled)])
                if now.settled - was.settled != added.get(key, 0):
                    self._apart[key] = self.step


def _difference(expected: Mapping[Key, int], found: Mapping[Key, int]) -> str:
    differing = sorted(key for key in {*expected, *found} if expected.get(key) != found.get(key))
    return "; ".join(
        f"{key[0]} {key[1]:%Y-%m-%d}: {found.get(key)} instead of {expected.get(key)}" for key in differing
    )
