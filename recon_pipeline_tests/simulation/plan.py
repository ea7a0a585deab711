"""What each actor of a simulation does, drawn from a seed, and the words of a schedule.

A plan is data: it can be made shorter, printed, and read again.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby

from recon_pipeline_tests.reconciliation.billing import JUNE, MAY, Period, in_month
from recon_pipeline_tests.simulation.model import Key

CUSTOMERS = ("a", "b", "c", "d")
LEAP: Period = (datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 3, 29, tzinfo=UTC))
"""Begins on a leap day."""
SPRING: Period = (datetime(2025, 3, 9, 5, 30, tzinfo=UTC), datetime(2025, 4, 9, 4, 30, tzinfo=UTC))
"""Begins in the hour in which the server's own time zone goes over to daylight saving, and ends an hour earlier."""
LAST_MOMENT: Period = (MAY[1] - timedelta(seconds=2), MAY[1] + timedelta(days=30))
"""Begins in the last moment of a month."""
PERIODS: tuple[Period, ...] = (MAY, JUNE, in_month(JUNE, 10), LEAP, SPRING, LAST_MOMENT)

SQLSTATES = {
    "lock timeout": "55P03",
    "deadlock": "40P01",
    "serialization failure": "40001",
    "statement timeout": "57014",
    "disk full": "53100",
    "out of memory": "53200",
    "input/output error": "58030",
}
TERMINATED, COMMIT_UNKNOWN, FROZEN = "backend terminated", "commit unknown", "client frozen"
FAULTS = (*SQLSTATES, TERMINATED, COMMIT_UNKNOWN, FROZEN, FROZEN)
NAMED = ("null", "none", "old", "own", "soon", "far")
"""What an application may write into `ingest_xid`."""

TRAFFIC_CUSTOMERS = 300
"""More than the product samples anywhere."""

POISONS = ("no period end", "no customer", "long customer", "counter without count", "counter without customer")
NUMERIC_POISONS = ("past bigint", "past numeric")
BOUNDARIES_OF_A_RUN = 120
"""About as many statements and commits has a run: faults strike before one of them."""

BOUNDARIES_OF_A_CLOSING = 20
"""The same of a sealing."""


@dataclass(frozen=True)
class Op:
    """One thing that an actor does; what is meant by the fields depends on the kind.

    Attributes:
        kind: Which thing.
        keys: Whom it is about.
        quantity: How much.
        request_id: Of the event.
        pick: Chooses among what is there.
        fault: What goes wrong in it.
        nth: Before which statement.
        is_rolled_back: The application thinks better of it at the end.
    """

    kind: str
    keys: tuple[Key, ...] = ()
    quantity: int = 0
    request_id: str = ""
    pick: int = 0
    fault: str = ""
    nth: int = 0
    is_rolled_back: bool = False


@dataclass(frozen=True)
class World:
    """How the application's tables are, and what the environment says.

    Attributes:
        is_unique: The log refuses a repeated request id.
        is_incremental: Runs read the log in increments.
        settles: Increments come in a second transaction, and RECON_SETTLE_SECONDS says how long after.
        max_repairs: RECON_MAX_REPAIRS.
        is_partitioned: The log is partitioned by months, and cannot refuse a repeated request id.
        is_guarded: The product's role is no superuser, and row level security holds for it.
        is_numeric: Quantities are numeric.
        is_loose: Constraints are lacking that would keep poisoned rows out.
        has_traffic: Other customers use something between every two statements of a run.
        is_calm: Nobody does anything wrong: every run ends clean.
    """

    is_unique: bool = True
    is_incremental: bool = True
    settles: bool = False
    max_repairs: int = 10_000
    is_partitioned: bool = False
    is_guarded: bool = False
    is_numeric: bool = False
    is_loose: bool = False
    has_traffic: bool = False
    is_calm: bool = False


@dataclass(frozen=True)
class Plan:
    """Who does what; in which order is the schedule's."""

    seed: int
    world: World
    ops: Mapping[str, tuple[Op, ...]]

    @property
    def size(self) -> int:
        """Things done in all."""
        return sum(map(len, self.ops.values()))

    def only(self, kept: Mapping[str, Sequence[int]]) -> "Plan":
        """The same with these of its things only."""
        return replace(self, ops={name: tuple(ops[index] for index in kept[name]) for name, ops in self.ops.items()})


@dataclass
class _Draw:
    choices: random.Random
    world: World
    keys: list[Key]
    requests: list[str] = field(default_factory=list)

    def writer(self, name: str, count: int) -> tuple[Op, ...]:
        kinds = ["record"] * 4 + ["split"] * 2 + ["many"]
        if not self.world.is_calm:
            kinds += ["two"] * 4 if self.world.settles else ["two"]
        return tuple(self._write(name, number, self.choices.choice(kinds)) for number in range(count))

    def _write(self, name: str, number: int, kind: str) -> Op:
        new = f"{name}-{number}"
        # Where the log admits a repeated request id, it is counted twice: that is nothing calm.
        repeats = bool(self.requests) and (self.world.is_unique or not self.world.is_calm)
        request_id = self.choices.choice(self.requests) if repeats and self.choices.random() < 0.15 else new
        self.requests.append(new)
        quantity = self.choices.randint(1, 9)
        if not self.world.is_unique and kind == "split" and self.choices.random() < 0.3:
            quantity = self.choices.choice([0, -3])
        keys = self.choices.sample(self.keys, 2) if kind == "many" else [self.choices.choice(self.keys)]
        return Op(kind, tuple(keys), quantity, request_id, is_rolled_back=self.choices.random() < 0.1)

    def saboteur(self, count: int) -> tuple[Op, ...]:
        kinds = ["set", "set", "delete", "twice", "lost", "orphan", "erase", "edit", "mass edit", "mass erase"]
        return tuple(
            Op(
                self.choices.choice(kinds),
                (self.choices.choice(self.keys),),
                self.choices.randint(1, 40),
                f"lost-{number}",
                self.choices.randint(0, 1_000),
                is_rolled_back=self.choices.random() < 0.1,
            )
            for number in range(count)
        )

    def namer(self, count: int) -> tuple[Op, ...]:
        """Writers that fill `ingest_xid` themselves; most of them count what they write."""
        return tuple(
            Op(
                self.choices.choice(["named", "named", "copied"]),
                (self.choices.choice(self.keys),),
                self.choices.randint(1, 9),
                f"named-{number}",
                self.choices.randint(0, 1_000),
                nth=int(self.choices.random() < 0.7),
                is_rolled_back=self.choices.random() < 0.1,
            )
            for number in range(count)
        )

    def poisoner(self, count: int) -> tuple[Op, ...]:
        kinds = POISONS + NUMERIC_POISONS * self.world.is_numeric
        return tuple(
            Op(self.choices.choice(kinds), (self.choices.choice(self.keys),), 3, f"poison-{number}", number)
            for number in range(count)
        )

    def migrator(self, count: int) -> tuple[Op, ...]:
        kinds = ["add column to log", "reload log", "add column to counters"]
        kinds += ["partition"] * 2 * self.world.is_partitioned
        kinds += ["row security"] * 3 * self.world.is_guarded
        kinds += ["retype quantity"] * (not self.world.is_numeric)
        return tuple(
            Op(self.choices.choice(kinds), pick=number, is_rolled_back=self.choices.random() < 0.1)
            for number in range(count)
        )

    def runs(self, kinds: Sequence[str], count: int, *, faulty: float) -> tuple[Op, ...]:
        return tuple(self._run(self.choices.choice(kinds), faulty) for _ in range(count))

    def _run(self, kind: str, faulty: float) -> Op:
        run = Op(kind, (self.choices.choice(self.keys),))
        if self.choices.random() < faulty and not self.world.is_calm:
            return replace(run, fault=self.choices.choice(FAULTS), nth=self.choices.randint(1, BOUNDARIES_OF_A_RUN))
        return run


def draw(seed: int) -> Plan:
    """The plan of a seed."""
    choices = random.Random(seed)  # noqa: S311 - not a secret
    world = _draw_world(choices)
    every_key = [(customer, *period) for customer in CUSTOMERS for period in PERIODS]
    drawn = _Draw(choices, world, choices.sample(every_key, choices.randint(2, 6)))
    disturbs = not world.is_calm
    ops = {
        "writer1": drawn.writer("writer1", choices.randint(3, 7)),
        "writer2": drawn.writer("writer2", choices.randint(3, 7)),
        "writer3": drawn.writer("writer3", choices.randint(0, 5)),
        "namer": drawn.namer(choices.randint(0, 4) * (disturbs and world.is_incremental and choices.random() < 0.4)),
        "saboteur": drawn.saboteur(choices.randint(2, 6) * disturbs),
        "poisoner": drawn.poisoner(choices.randint(1, 3) * (disturbs and world.is_loose)),
        "migrator": drawn.migrator(choices.randint(1, 3) * (disturbs and choices.random() < 0.5)),
        "tick1": drawn.runs(["tick"], choices.randint(1, 3), faulty=0.25),
        "tick2": drawn.runs(["tick", "news"], choices.randint(0, 2), faulty=0.25),
        "auditor": drawn.runs(["full", "backfill", "customer"], choices.randint(0, 2), faulty=0.1),
        "operator": drawn.runs(["dry", "approve"], choices.randint(0, 1), faulty=0.0),
        "clock": (Op("hour"),) * (choices.randint(1, 3) if world.settles else 0),
    }
    # Who goes on using what is sealed drifts all the while: that is not calm, and no other customer knows of a seal.
    if disturbs and not world.has_traffic:
        ops["finance"] = _closings(random.Random(-seed), drawn.keys)  # noqa: S311 - not a secret
    return Plan(seed, world, ops)


def _closings(choices: random.Random, keys: Sequence[Key]) -> tuple[Op, ...]:
    """Drawn by themselves, so that the same seed draws the same of all others."""
    if choices.random() < 0.5:
        return ()
    kinds = choices.choices(["seal", "reopen"], [3, 1], k=choices.randint(1, 5))
    return tuple(_closing(choices, kind, choices.choice(keys)) for kind in kinds)


def _closing(choices: random.Random, kind: str, key: Key) -> Op:
    if choices.random() < 0.2:
        fault = choices.choice([*SQLSTATES, TERMINATED])
        return Op(kind, (key,), fault=fault, nth=choices.randint(1, BOUNDARIES_OF_A_CLOSING))
    return Op(kind, (key,))


def _draw_world(choices: random.Random) -> World:
    is_calm = choices.random() < 0.1
    is_partitioned = choices.random() < 0.15
    is_unique = choices.random() < 0.7 and not is_partitioned
    is_incremental = choices.random() < 0.75
    # Many events whose every sum looks for repeated request ids in all of the log take long, and show no more.
    may_be_busy = is_unique or is_incremental
    return World(
        is_unique=is_unique,
        is_incremental=is_incremental,
        settles=choices.random() < 0.2 and not is_calm,
        max_repairs=choices.choice([2, 10_000, 10_000, 10_000]),
        is_partitioned=is_partitioned,
        is_guarded=choices.random() < 0.3,
        is_numeric=choices.random() < 0.1,
        is_loose=choices.random() < 0.15,
        has_traffic=(choices.random() < 0.25 or is_calm) and may_be_busy,
        is_calm=is_calm,
    )


def as_words(kept: Mapping[str, Sequence[int]], decided: Sequence[str]) -> str:
    """A schedule as one line: what is kept of the plan, and who goes when."""
    keeps = " ".join(f"{name}:{','.join(map(str, indexes))}" for name, indexes in kept.items() if indexes)
    return f"{keeps} | " + " ".join(f"{name}*{len(list(turns))}" for name, turns in groupby(decided))


def from_words(words: str, plan: Plan) -> tuple[dict[str, list[int]], list[str]]:
    """Read a schedule.

    Raises:
        ValueError: It is not one.
    """
    keeps, bar, turns = words.partition("|")
    if not bar:
        raise ValueError("a schedule is `actor:0,1 … | actor*turns …`")
    kept: dict[str, list[int]] = {name: [] for name in plan.ops}
    for part in keeps.split():
        name, _, indexes = part.partition(":")
        if name not in kept:
            raise ValueError(f"there is no actor {name}; there are {', '.join(kept)}")
        kept[name] = [int(index) for index in indexes.split(",")]
    decided: list[str] = []
    for part in turns.split():
        name, _, count = part.rpartition("*")
        decided += [name] * int(count)
    return kept, decided
