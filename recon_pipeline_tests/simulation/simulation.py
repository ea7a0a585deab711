"""A plan played on a real Postgres in an order that a seed, or a schedule, decides; checked at each commit.

At the end everybody rests, and one more run has to make everything true.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any
from unittest.mock import patch

from recon_pipeline.core.guards import Budgets
from recon_pipeline.store import repair as repair_module
from recon_pipeline.store.database import BillingDatabase
from recon_pipeline_tests.reconciliation.billing import Billing, connected
from recon_pipeline_tests.reconciliation.conftest import install_increments, make_tables
from recon_pipeline_tests.simulation import pipeline
from recon_pipeline_tests.simulation.actors import SETTLE_SECONDS, Reconciler, application, clock
from recon_pipeline_tests.simulation.model import Drifted, Key, Model, Repair, ViolationError
from recon_pipeline_tests.simulation.pipeline import COMMIT, Asked
from recon_pipeline_tests.simulation.plan import Plan, World
from recon_pipeline_tests.simulation.scheduler import DEADLOCK_TIMEOUT_MS, TIMEOUT, Actor, Scheduler
from recon_pipeline_tests.support.postgres import PostgresServer

STATEMENTS_WAITED_FOR = 6
"""The most statements of the product's, those of one chunk, during which the application may wait for it."""

RECONCILERS = ("tick1", "tick2", "auditor", "operator")
_LOOSE = """
    alter table billing_usage_events drop constraint billing_usage_events_gateway_name_request_id_key;
    alter table billing_usage_events drop constraint billing_usage_events_quantity_check;
    create index on billing_usage_events (request_id);
"""
_COUNTERS = "select gateway_customer_id, period_start, period_end, usage_count from billing_usage_counters"
_REPAIRS = """
    select run_id, gateway_customer_id, period_start, period_end, usage_count_before, usage_count_after, id
    from recon.counter_repair where id <> all(%s) order by id
"""
_DRIFT = """
    select gateway_customer_id, period_start, period_end, usage_count, settled_sum::bigint, visible_sum::bigint
    from recon.counter_drift where run_id = %s
"""
_EVENTS = """
    select id::text, request_id, gateway_customer_id, period_start, period_end, quantity from billing_usage_events
"""
_BLOCKS = "select pg_blocking_pids(%s)"
Choose = Callable[[Sequence[str]], str]


@dataclass
class Played:
    """What became of a simulation.

    Attributes:
        violation: What must never be true and was, or None.
        decided: Who went when.
        outcomes: How the runs of the product ended.
        repairs: How many counters were repaired in all.
        disturbed: What went wrong on purpose, by name.
    """

    violation: str | None = None
    decided: list[str] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    repairs: int = 0
    disturbed: list[str] = field(default_factory=list)


def configure(server: PostgresServer) -> None:
    """Nothing but the actors acts in the server: no vacuum comes in between, and deadlocks are broken soon."""
    with connected(server.url("postgres"), autocommit=True) as connection:
        connection.execute("alter system set autovacuum = off")
        connection.execute(f"alter system set deadlock_timeout = {DEADLOCK_TIMEOUT_MS}".encode())
        connection.execute("select pg_reload_conf()")


def from_seed(seed: int) -> Choose:
    """Decides by a seed: mostly somebody goes on for a while, and a wait for a lock seldom runs into its timeout."""
    choices, current = random.Random(seed), [""]  # noqa: S311 - not a secret

    def choose(open_turns: Sequence[str]) -> str:
        ready = [turn for turn in open_turns if not turn.startswith(TIMEOUT)]
        if len(ready) < len(open_turns) and choices.random() < 0.05:
            return choices.choice([turn for turn in open_turns if turn.startswith(TIMEOUT)])
        if current[0] not in ready or choices.random() < 0.15:
            current[0] = choices.choice(ready)
        return current[0]

    return choose


def from_schedule(decided: Sequence[str]) -> Choose:
    """Decides as it was decided before; what is not possible is passed over, and at the end the first in line goes."""
    left = list(decided)

    def choose(open_turns: Sequence[str]) -> str:
        while left:
            turn = left.pop(0)
            if turn in open_turns:
                return turn
        return open_turns[0]

    return choose


@dataclass
class Script:
    """Decides that each goes on until it has done what the script says; at the end the first in line goes."""

    left: list[tuple[str, str]]

    def choose(self, open_turns: Sequence[str]) -> str:
        """Whose turn it is."""
        while self.left and self.left[0][0] not in open_turns:
            self.left.pop(0)
        return self.left[0][0] if self.left else open_turns[0]

    def told(self, actor: str, at: str) -> None:
        """Somebody has done something."""
        if self.left and self.left[0] == (actor, at):
            self.left.pop(0)


def play(
    plan: Plan, choose: Choose, server: PostgresServer, *, told: Callable[[str, str], object] = lambda *_: None
) -> Played:
    """Play a plan in a database of its own; `told` hears who goes, and what it does."""
    world = plan.world
    url = server.create_database(
        server.template(f"world {world.is_unique} {world.is_incremental}", partial(_make, world))
    )
    try:
        with ExitStack() as opened:
            monitor = Billing(url, opened.enter_context(connected(url, autocommit=True, options="-c timezone=UTC")))
            opened.enter_context(_steady())
            budgets = Budgets(max_repairs=world.max_repairs)
            settle_seconds = SETTLE_SECONDS if world.settles else 0
            opened.enter_context(pipeline.settings(settle_seconds=settle_seconds, budgets=budgets))
            return _Play(plan, monitor, Model(world.settles), told).play(choose)
    finally:
        server.drop_database(url)


@dataclass
class _Play:
    plan: Plan
    monitor: Billing
    model: Model
    told: Callable[[str, str], object]
    in_flight: set[str] = field(default_factory=set)
    reconcilers: dict[str, Reconciler] = field(default_factory=dict)
    actors: list[Actor] = field(default_factory=list)
    waited: dict[str, int] = field(default_factory=dict)
    seen: list[int] = field(default_factory=list)

    def play(self, choose: Choose) -> Played:
        played = Played()
        self.actors = [self._actor(name) for name, ops in self.plan.ops.items() if ops]
        scheduler = Scheduler(self.actors, self.monitor.connection, choose, self._after)
        try:
            scheduler.run()
            self._rest()
        except ViolationError as violation:
            played.violation = str(violation)
        played.decided = scheduler.decided
        runs = [ended for reconciler in self.reconcilers.values() for ended in reconciler.ended]
        played.outcomes = [ended.outcome for ended in runs]
        played.repairs = self.model.repairs
        played.disturbed = [name for one in self.reconcilers.values() for name in one.disturbed]
        return played

    def _actor(self, name: str) -> Actor:
        ops, url = self.plan.ops[name], self.monitor.url
        if name == "clock":
            return Actor(name, clock(ops, url, self.model), may_go=lambda: not self.in_flight)
        if name not in RECONCILERS:
            return Actor(name, application(ops, url, self.model, self.in_flight))
        self.reconcilers[name] = Reconciler(ops, url, self.model, self.plan.world.max_repairs)
        return Actor(name, self.reconcilers[name].act, is_product=True)

    def _after(self, actor: Actor, at: str) -> None:
        self.model.step += 1
        self.told(actor.name, at)
        self._require_no_error()
        self._require_short_waits(actor)
        if at == COMMIT:
            self._require_committed(self.reconcilers.get(actor.name))

    def _require_no_error(self) -> None:
        for actor in self.actors:
            if actor.error is not None:
                if isinstance(actor.error, ViolationError):
                    raise actor.error
                raise ViolationError(f"{actor.name} failed before {actor.at}: {actor.error!r}") from actor.error

    def _require_short_waits(self, actor: Actor) -> None:
        """The application waits for a chunk of the product's, and no longer."""
        waiting = [other for other in self.actors if not other.is_product and other.state.name == "BLOCKED"]
        self.waited = {other.name: self.waited.get(other.name, 0) for other in waiting}
        for other in waiting if actor.is_product else ():
            self.waited[other.name] += actor.pid in self.monitor.value(_BLOCKS, other.pid)
            if self.waited[other.name] > STATEMENTS_WAITED_FOR:
                raise ViolationError(f"{other.name} waits for {actor.name}, which went on to {actor.at}")

    def _require_committed(self, reconciler: Reconciler | None) -> None:
        counters: dict[Key, int] = {row[:3]: row.usage_count for row in self.monitor.query(_COUNTERS)}
        repairs = self._new_repairs()
        if reconciler is None or reconciler.run is None:
            self.model.require_counters(counters, self.model.repairs + len(repairs))
            return
        run = reconciler.run
        if foreign := [repair for repair in repairs if repair.run_id != run.run_id]:
            raise ViolationError(f"{foreign} came with a commit of run {run.run_id}")
        found = len(run.compared or ())
        is_blocked = found > reconciler.max_repairs and not run.extent.approve_reason
        self.model.commit_of_product(counters, repairs, run.compared_step, is_blocked=is_blocked or run.extent.is_dry)
        if run.compared is not None and not run.is_compared:
            self._require_exact(run.run_id, run.compared)
            run.is_compared = True

    def _new_repairs(self) -> list[Repair]:
        """Rows of the ledger that came since it was last asked; they need not come in the order of their ids."""
        rows = self.monitor.query(_REPAIRS, self.seen)
        self.seen += [row.id for row in rows]
        return [Repair(row.run_id, row[1:4], row.usage_count_before, row.usage_count_after) for row in rows]

    def _require_exact(self, run_id: str, expected: dict[Key, Drifted]) -> None:
        """A comparison finds what has drifted at its snapshot, all of it and nothing else."""
        found = {row[:3]: Drifted(*row[3:]) for row in self.monitor.query(_DRIFT, run_id)}
        if found != expected:
            raise ViolationError(f"the comparison found {found}, at its snapshot there was {expected}")

    def _rest(self) -> None:
        """Once nobody acts, a run makes everything true, and the next ones find it so in every way there is."""
        if self.model.settles:
            self.monitor.query("update billing_usage_events set created_at = created_at - interval '1 day'")
            self.model.grow_older()
        for number, ask in enumerate((Asked(), Asked(), Asked(full=True))):
            ended = self._run(ask)
            if number == 0 and ended.outcome == "blocked":
                ended = self._run(Asked(approve_reason="the end"))  # an approval is of what a blocked run has shown
            if ended.outcome != "clean":
                raise ViolationError(f"run {number + 1} at rest ended {ended}")
            if number > 0 and self._new_repairs():
                raise ViolationError("something was repaired once all was true")
            self._require_at_rest(ended.run_id)

    def _run(self, ask: Asked) -> pipeline.Ended:
        database = BillingDatabase(self.monitor.url, keeps_connection=True)
        try:
            return pipeline.run(database, ask)
        finally:
            database.close()

    def _require_at_rest(self, run_id: str) -> None:
        counters: dict[Key, int] = {row[:3]: row.usage_count for row in self.monitor.query(_COUNTERS)}
        repairs = self._new_repairs()
        self.model.commit_of_product(counters, repairs, self.model.step)
        if left := self.model.drift():
            raise ViolationError(f"at rest after a run, {left} differ")
        events = {row.id: (row.request_id, row[2:5], row.quantity) for row in self.monitor.query(_EVENTS)}
        expected = {id: (event.request_id, event.key, event.quantity) for id, event in self.model.events.items()}
        if events != expected:
            raise ViolationError(f"the log was changed in run {run_id}")


def _make(world: World, url: str) -> None:
    make_tables(url)
    with connected(url, autocommit=True) as connection:
        if not world.is_unique:
            connection.execute(_LOOSE)
    if world.is_incremental:
        install_increments(url)


@contextmanager
def _steady() -> Iterator[None]:
    """Small chunks, whose size does not hang on how long things take."""
    ticks = count()
    clock: Any = lambda: next(ticks) * 0.1  # noqa: E731
    with (
        patch.object(repair_module, "CHUNK_KEYS", 8),
        patch.object(repair_module, "repair", partial(repair_module.repair, clock=clock)),
    ):
        yield
