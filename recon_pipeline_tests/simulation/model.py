"""What must be true of counters, log and ledger, in plain Python.

Knows no database and no clock. Changes come in whole transactions, in the order in which they commit. A key with a
poisoned row is nobody's promise: nothing is said about it, and everything about the others.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
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
        quantity: None is invalid; a negative one is a credit.
        arrived: Sorts events by arrival.
        transaction: That which wrote the row as it is.
    """

    request_id: str
    key: Key
    quantity: int | None
    arrived: tuple[Any, ...] = ()
    transaction: int = 0

    @property
    def is_valid(self) -> bool:
        """Whether it can count."""
        return self.quantity is not None and None not in self.key and self.key[2] > self.key[1]


@dataclass(frozen=True)
class Sum:
    """The event sum of one key: the least and the most that it may be while increments of events are on their way."""

    settled: int = 0
    visible: int = 0

    def admits(self, usage_count: int | None) -> bool:
        """Whether a counter of this value is right."""
        return self.settled <= (usage_count or 0) <= self.visible


@dataclass(frozen=True)
class Drifted:
    """One key whose counter is not what the log says."""

    usage_count: int | None
    settled: int
    visible: int
    is_doubtful: bool = field(default=False, compare=False)

    @property
    def has_too_much(self) -> bool:
        """Whether the counter is above what the log says, and not below."""
        return (self.usage_count or 0) > self.visible


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


@dataclass(frozen=True)
class Rewritten:
    """Every row of the log was written anew by a transaction, with the values that it had."""

    transaction: int


@dataclass(frozen=True)
class Poisoned:
    """A key has a row that no arithmetic can hold."""

    key: Key


@dataclass(frozen=True)
class Foreign:
    """A key has an event that does not carry the transaction that inserted it."""

    key: Key


@dataclass(frozen=True)
class Sealed:
    """From now on the counters of a month, `YYYY-MM`, follow these sums; a key of it that has none follows 0."""

    month: str
    sums: Mapping[Key, int]


@dataclass(frozen=True)
class Reopened:
    """The counters of a month follow the log again."""

    month: str


Change = Sealed | Reopened | Added | Deleted | Erased | Inserted | Rewritten | Poisoned | Foreign
_NOTHING = Sum()


@dataclass
class Model:
    """The committed state.

    Attributes:
        settles: Increments may come after their events, by as much as RECON_SETTLE_SECONDS.
        step: Grows with every decision of the schedule.
        poisoned: Keys of which nothing is said.
        sealed: The sums of sealed months, by month.
        seals: How often a month was sealed.
        foreign: Keys whose increments cannot be seen as such; what is read in increments may be wrong about them.
        old_horizon: The highest horizon that a run took longer ago than RECON_SETTLE_SECONDS.
    """

    settles: bool
    step: int = 0
    events: dict[str, Event] = field(default_factory=dict)
    counters: dict[Key, int] = field(default_factory=dict)
    repairs: int = 0
    seals: int = 0
    poisoned: set[Key] = field(default_factory=set)
    sealed: dict[str, Mapping[Key, int]] = field(default_factory=dict)
    foreign: set[Key] = field(default_factory=set)
    old_horizon: int = 0
    _sums: dict[Key, Sum] = field(default_factory=dict)
    _of_key: dict[Key, set[str]] = field(default_factory=dict)
    _of_request: dict[str, set[str]] = field(default_factory=dict)
    _history: dict[Key, list[tuple[int, Sum]]] = field(default_factory=dict)
    _apart: dict[Key, int] = field(default_factory=dict)
    _grew_older: int = -1
    _doubtful_since: dict[Key, int] = field(default_factory=dict)

    def is_settled(self, event: Event) -> bool:
        """Whether the increment of an event must have arrived.

        The one place that says so: its transaction had ended when a horizon was taken that is old enough by now. When
        the transaction began, and what the row says of its own age, is no part of it.
        """
        return not self.settles or event.transaction < self.old_horizon

    def sum_of(self, key: Key) -> Sum:
        """The event sum of a key: the first valid event of each request id counts; or what was sealed of it."""
        return self._sums.get(key, _NOTHING)

    def total_of(self, key: Key) -> int:
        """What all events of a key that count add up to, sealed or not, on their way or not."""
        return sum(event.quantity or 0 for event in self._counted(key))

    def keys_of(self, month: str) -> set[Key]:
        """The keys of a month."""
        return {key for key in {*self._of_key, *self.counters, *self._sums} if month_of(key) == month}

    def drift(self) -> dict[Key, Drifted]:
        """The keys whose counter lies outside of what the log allows."""
        found = {}
        for key in {*self._sums, *self.counters} - self.poisoned:
            total, counted = self.sum_of(key), self.counters.get(key)
            if not total.admits(counted):
                found[key] = Drifted(counted, total.settled, total.visible, is_doubtful=key in self._doubtful_since)
        # Of two periods with one start the one may be the other, written with another end.
        moved = {key for key in found for other in found if key[:2] == other[:2] and _are_opposite(found, key, other)}
        return {key: replace(one, is_doubtful=one.is_doubtful or key in moved) for key, one in found.items()}

    def repairable(self) -> dict[Key, Drifted]:
        """Those of them of which the log says for certain what they should be."""
        return {key: drifted for key, drifted in self.drift().items() if not drifted.is_doubtful}

    def commit(self, changes: Iterable[Change]) -> None:
        """What a transaction of the application, of a saboteur or of a migrator did."""
        touched: set[Key] = set()
        added: dict[Key, int] = {}
        for change in changes:
            match change:
                case Inserted(id, event):
                    touched |= self._forget(id)
                    touched |= self._learn(id, event)
                case Erased(id):
                    touched |= self._forget(id)
                case Deleted(key):
                    self.counters.pop(key, None)
                case Added(key, quantity):
                    self.counters[key] = self.counters.get(key, 0) + quantity
                    added[key] = added.get(key, 0) + quantity
                case Rewritten(transaction):
                    self.events = {id: replace(event, transaction=transaction) for id, event in self.events.items()}
                    touched |= set(self._of_key)
                case Poisoned(key):
                    self.poisoned.add(key)
                    self.counters.pop(key, None)
                case Foreign(key):
                    self.foreign.add(key)
                case Sealed(month, sums):
                    self.sealed[month] = sums
                    self.seals += 1
                    touched |= self.keys_of(month)
                case Reopened(month):
                    del self.sealed[month]
                    touched |= self.keys_of(month)
        self._remember(touched, added)

    def grow_older(self, old_horizon: int) -> None:
        """So much time passes that every increment has arrived whose event had been committed at that horizon."""
        self.old_horizon = max(self.old_horizon, old_horizon)
        self._grew_older = self.step
        self._remember(set(self._of_key), {})

    def sum_anew(self) -> None:
        """Every sum is that of another `old_horizon`; nothing is remembered of it."""
        self._sums = {key: self._summed(key) for key in self._sums}

    def commit_of_product(
        self, counters: Mapping[Key, int], repairs: Iterable[Repair], since: int, began: int, *, is_blocked: bool
    ) -> None:
        """What a transaction of the product did.

        Args:
            counters: As they are now.
            repairs: The new rows of the ledger.
            since: The step in which the transaction began.
            began: The step in which the run began.
            is_blocked: The run may not repair anything.

        Raises:
            ViolationError: It did anything but repairs of wrong counters to what the log says, each with its row in
                the ledger.
        """
        expected = dict(self.counters)
        for repair in repairs:
            self.repairs += 1
            if repair.key in self.poisoned:
                continue
            if is_blocked:
                raise ViolationError(f"a run that a guard had blocked repaired {repair}")
            if expected.get(repair.key) != repair.before:
                raise ViolationError(f"{repair}: the counter was {expected.get(repair.key)} before")
            self._require_right(repair, since, began)
            expected[repair.key] = repair.after
        self._require_same(expected, counters, "counters and ledger part")
        self.counters = expected

    def require_counters(self, counters: Mapping[Key, int], ledger_rows: int) -> None:
        """Hold the database to the model.

        Raises:
            ViolationError: A counter is not the application's increments, plus the ledger, plus sabotage.
        """
        self._require_same(self.counters, counters, "a counter changed without a cause")
        if ledger_rows != self.repairs:
            raise ViolationError(f"the ledger has {ledger_rows} rows, {self.repairs} repairs were made")

    def _require_right(self, repair: Repair, since: int, began: int) -> None:
        """A repair sets a wrong counter to what the log says now.

        If the log changed apart from the counter while the transaction lasted, what it said meanwhile will do. Where
        an hour passed in the run, its own idea of what is old enough may be that of its beginning.
        """
        if self._doubtful_since.get(repair.key, since) < since:
            raise ViolationError(f"{repair} is of a doubtful key: an event of another one has the same request id")
        possible = [self.sum_of(repair.key)]
        since = began if self._grew_older >= began else since
        if self._apart.get(repair.key, -1) >= since:
            possible += [total for step, total in self._history.get(repair.key, []) if step >= since]
        says = " or ".join(sorted({f"{one.settled} to {one.visible}" for one in possible}))
        if not any(one.admits(repair.after) for one in possible):
            raise ViolationError(f"{repair} is wrong: the log says {says}")
        if all(one.admits(repair.before) for one in possible) and (repair.before is not None or repair.after):
            raise ViolationError(f"{repair} changed a counter that was right: the log says {says}")

    def _require_same(self, expected: Mapping[Key, int], counters: Mapping[Key, int], subject: str) -> None:
        found = {key: counted for key, counted in counters.items() if key not in self.poisoned}
        if found != expected:
            raise ViolationError(f"{subject}: {_difference(expected, found)}")

    def _learn(self, id: str, event: Event) -> set[Key]:
        self.events[id] = event
        self._of_key.setdefault(event.key, set()).add(id)
        self._of_request.setdefault(event.request_id, set()).add(id)
        return self._sharing(event.request_id)

    def _forget(self, id: str) -> set[Key]:
        event = self.events.get(id)
        if event is None:
            return set()
        touched = self._sharing(event.request_id)
        del self.events[id]
        self._of_key[event.key].discard(id)
        self._of_request[event.request_id].discard(id)
        return touched

    def _sharing(self, request_id: str) -> set[Key]:
        return {self.events[id].key for id in self._of_request[request_id]}

    def _summed(self, key: Key) -> Sum:
        if (sealed := self._sealed_sum(key)) is not None:
            return Sum(sealed, sealed)
        settled = visible = 0
        for event in self._counted(key):
            quantity, is_settled = event.quantity or 0, self.is_settled(event)
            visible += quantity if is_settled or quantity > 0 else 0
            settled += quantity if is_settled or quantity < 0 else 0
        return Sum(settled, visible)

    def _sealed_sum(self, key: Key) -> int | None:
        sums = self.sealed.get(month_of(key))
        return None if sums is None else sums.get(key, 0)

    def _counted(self, key: Key) -> list[Event]:
        events = [self.events[id] for id in self._of_key.get(key, ())]
        return [event for event in events if event.is_valid and self._is_first(event)]

    def _is_first(self, event: Event) -> bool:
        others = (self.events[id] for id in self._of_request[event.request_id])
        return not any(other.is_valid and other.arrived < event.arrived for other in others)

    def _is_doubtful(self, key: Key) -> bool:
        """Whether an event of the key shares its request id with one of another key or of another sign.

        In a sealed month no event makes a key doubtful.
        """
        if self._sealed_sum(key) is not None:
            return False
        valid = [self.events[id] for id in self._of_key.get(key, ()) if self.events[id].is_valid]
        pairs = ((event, self.events[id]) for event in valid for id in self._of_request[event.request_id])
        return any(other.is_valid and (other.key != key or _sign(event) != _sign(other)) for event, other in pairs)

    def _remember(self, touched: Iterable[Key], added: Mapping[Key, int]) -> None:
        for key in touched:
            if self._is_doubtful(key):
                self._doubtful_since.setdefault(key, self.step)
            else:
                self._doubtful_since.pop(key, None)
            if key in self.poisoned:
                self._sums.pop(key, None)
                continue
            was, now = self.sum_of(key), self._summed(key)
            if was != now:
                self._sums[key] = now
                # What it was until now belongs to this step too: a snapshot may be as old as that.
                self._history.setdefault(key, []).extend([(self.step, was), (self.step, now)])
                if now.visible - was.visible != added.get(key, 0) or now.settled - was.settled not in (
                    0,
                    added.get(key, 0),
                ):
                    self._apart[key] = self.step


def _are_opposite(drift: Mapping[Key, Drifted], one: Key, other: Key) -> bool:
    """Whether one of two counters has too much, and the other too little."""
    return drift[one].has_too_much != drift[other].has_too_much


def month_of(key: Key) -> str:
    """The billing month of a key, `YYYY-MM`."""
    return f"{key[1].astimezone(UTC):%Y-%m}"


def _difference(expected: Mapping[Key, int], found: Mapping[Key, int]) -> str:
    differing = [key for key in {*expected, *found} if expected.get(key) != found.get(key)]
    return "; ".join(
        sorted(f"{key[0]} {key[1]:%Y-%m-%d}: {found.get(key)} instead of {expected.get(key)}" for key in differing)
    )


def _sign(event: Event) -> int:
    quantity = event.quantity or 0
    return (quantity > 0) - (quantity < 0)
