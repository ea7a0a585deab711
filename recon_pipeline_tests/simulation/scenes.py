"""What production does on an ordinary day, each as the shortest plan and schedule in which a tidy product goes wrong.

Seeds find these too, some of them seldom. Who cannot go when it is his turn is passed over: a product that locks what
it reads is not caught in the middle, and what comes is the same without the harm.
"""

from dataclasses import dataclass

from recon_pipeline_tests.reconciliation.billing import JUNE, MAY
from recon_pipeline_tests.simulation.model import Key
from recon_pipeline_tests.simulation.pipeline import COMMIT
from recon_pipeline_tests.simulation.plan import FROZEN, NUMERIC_POISONS, POISONS, Op, Plan, World
from recon_pipeline_tests.simulation.runs import COMPARES

A: Key = ("a", *MAY)
B: Key = ("b", *JUNE)


@dataclass(frozen=True)
class Scene:
    """A plan, and who goes on until it has done what."""

    plan: Plan
    script: tuple[tuple[str, str], ...] = ()


_USES = (Op("record", (A,), 5, "used-a"), Op("record", (B,), 7, "used-b"))
_MISHAP = (Op("lost", (A,), 3, "lost"),)
_TICKS = {"tick1": (Op("tick"),), "tick2": (Op("tick"),)}


def _during_comparison(kind: str, pick: int = 0, world: World | None = None) -> Scene:
    """A migration comes once the second tick is about to compare."""
    ops = {"writer1": _USES, **_TICKS, "migrator": (Op(kind, pick=pick),)}
    script = (
        *[("writer1", COMMIT)] * len(_USES),
        ("tick1", "never"),  # until it is done
        ("tick2", COMPARES[0]),
        ("migrator", COMMIT),
    )
    return Scene(Plan(0, world or World(is_incremental=False), ops), script)


def _named(pick: int, *, is_counted: bool) -> Scene:
    """A tick, an event whose transaction is named by its writer, and a second tick."""
    named = Op("named", (A,), 4, "named", pick, nth=int(is_counted))
    ops = {"writer1": _USES, "tick1": (Op("tick"),), "namer": (named,), "tick2": (Op("tick"),)}
    script = (*[("writer1", COMMIT)] * len(_USES), ("tick1", "never"), ("namer", COMMIT))
    return Scene(Plan(0, World(), ops), script)


def _poison(kind: str, *, is_incremental: bool) -> Scene:
    world = World(is_incremental=is_incremental, is_loose=True, is_numeric=kind in NUMERIC_POISONS)
    poison = (Op(kind, (B,), 3, "poison"),)
    return Scene(Plan(0, world, {"writer1": _USES, "poisoner": poison, "saboteur": _MISHAP, "tick1": (Op("tick"),)}))


def _long_writer() -> Scene:
    """An event is committed an hour after its transaction began, and its increment is on its way."""
    ops = {
        "tick1": (Op("tick"),),
        "writer1": (Op("two", (A,), 5, "long"),),
        "clock": (Op("hour"), Op("hour")),
        "tick2": (Op("tick"),),
    }
    script = (
        ("writer1", "insert event"),
        ("tick1", "never"),
        ("clock", "an hour passes"),
        ("writer1", COMMIT),
        ("tick2", "never"),
    )
    return Scene(Plan(0, World(settles=True), ops), script)


_CALM = World(has_traffic=True, is_calm=True)

SCENES = {
    "others record usage between every two statements": Scene(
        Plan(0, _CALM, {"writer1": _USES, "tick1": (Op("tick"),) * 4})
    ),
    "the log is rewritten while a comparison begins": _during_comparison("retype quantity"),
    "a column is added with a default that rewrites the log": _during_comparison("add column to log"),
    "the log is truncated and loaded again while a comparison begins": _during_comparison("reload log"),
    "a tick reads increments of a log that is rewritten": _during_comparison("retype quantity", world=World()),
    "counters are rewritten while a comparison begins": _during_comparison("add column to counters"),
    "a partition is detached and attached while a comparison begins": _during_comparison(
        "partition", world=World(is_unique=False, is_partitioned=True, is_incremental=False)
    ),
    "row level security is switched on while a comparison begins": _during_comparison(
        "row security", world=World(is_guarded=True, is_incremental=False)
    ),
    "an event without ingest_xid is counted": _named(0, is_counted=True),
    "an event with ingest_xid 0 is counted": _named(1, is_counted=True),
    "an event with an old ingest_xid is counted": _named(2, is_counted=True),
    "an event with an ingest_xid to come is counted": _named(4, is_counted=True),
    "an event with an ingest_xid far ahead is counted": _named(5, is_counted=True),
    "an event without ingest_xid is not counted": _named(0, is_counted=False),
    "half of the log is erased by one statement": Scene(
        Plan(0, World(has_traffic=True), {"tick1": (Op("tick"),) * 2, "saboteur": (Op("mass erase"),)})
    ),
    "a process is frozen in the middle of a chunk": Scene(
        Plan(0, World(), {"saboteur": _MISHAP, "tick1": (Op("tick", fault=FROZEN, nth=1),)})
    ),
    "a writer's transaction lasts an hour": _long_writer(),
    **{
        f"{kind}, {'by increments' if is_incremental else 'from the log'}": _poison(kind, is_incremental=is_incremental)
        for kind in POISONS + NUMERIC_POISONS
        for is_incremental in (True, False)
    },
}
