"""A plan played on a real Postgres in an order that a seed, or a schedule, decides; checked at each commit.

At the end all actors stop, and one more run must repair everything.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any
from unittest.mock import patch

from recon_pipeline.store.counters import repair as repair_module
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.reconciliation.billing import Billing, connected
from recon_pipeline_tests.simulation import customers, pipeline, worlds
from recon_pipeline_tests.simulation.actors import application, clock, let_an_hour_pass
from recon_pipeline_tests.simulation.customers import Customers
from recon_pipeline_tests.simulation.finance import Finance, require_seals
from recon_pipeline_tests.simulation.migrations import Migrations, migrator
from recon_pipeline_tests.simulation.model import Drifted, Key, Model, Repair, ViolationError
from recon_pipeline_tests.simulation.pipeline import COMMIT, RunOptions
from recon_pipeline_tests.simulation.plan import Plan
from recon_pipeline_tests.simulation.poison import poisoner
from recon_pipeline_tests.simulation.runs import Reconciler, Run, Surroundings
from recon_pipeline_tests.simulation.scheduler import DEADLOCK_TIMEOUT_MS, TIMEOUT, Actor, Scheduler
from recon_pipeline_tests.support.postgres import PostgresServer

STATEMENTS_WAITED_FOR = 6
"""The most statements of the product's, those of one chunk, during which the application may wait for it."""

RECONCILERS = ("tick1", "tick2", "auditor", "operator")
_COUNTERS = "select gateway_customer_id, period_start, period_end, usage_count from billing_usage_counters"
_CHANGED = "delete from simulated.counter_change returning *"
"""Counters as they are, even if a session has locked the table."""

_HORIZONS_AHEAD = """
    select run_id from recon.reconciliation_run as run
    where (to_jsonb(run) ->> 'horizon')::bigint > pg_snapshot_xmin(pg_current_snapshot())::text::bigint
"""
_REPAIRS = """
    select run_id, gateway_customer_id, period_start, period_end, usage_count_before, usage_count_after, id
    from recon.counter_repair where id <> all(%s) order by id
"""
_DRIFT = """
    select gateway_customer_id, period_start, period_end, usage_count, settled_sum, visible_sum
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
        seals: How often a month was sealed.
        disturbed: What went wrong on purpose, by name.
    """

    violation: str | None = None
    decided: list[str] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    repairs: int = 0
    seals: int = 0
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

    def report(self, actor: str, at: str) -> None:
        """Somebody has done something."""
        if self.left and self.left[0] == (actor, at):
            self.left.pop(0)


def play(
    plan: Plan, choose: Choose, server: PostgresServer, *, report: Callable[[str, str], object] = lambda *_: None
) -> Played:
    """Play a plan in a database of its own; `report` gets each actor that goes on, and its step."""
    world = plan.world
    url = server.create_database(worlds.base_template(server))
    try:
        worlds.make(world, url)
        with ExitStack() as opened:
            monitor = Billing(url, opened.enter_context(connected(url, autocommit=True, options="-c timezone=UTC")))
            opened.enter_context(_steady())
            model = Model(world.settles)
            around = Surroundings(world, model, monitor, Migrations())
            if world.has_traffic:
                session = opened.enter_context(connected(url, options=customers.OPTIONS))
                around.between = Customers(session, model, random.Random(plan.seed)).use  # noqa: S311
            return _Play(plan, monitor, model, around, report).play(choose)
    finally:
        server.drop_database(url)


@dataclass
class _Play:
    plan: Plan
    monitor: Billing
    model: Model
    around: Surroundings
    report: Callable[[str, str], object]
    on_their_way: set[str] = field(default_factory=set)
    counters: dict[Key, int] = field(default_factory=dict)
    changed: dict[Key, int] = field(default_factory=dict)
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
        played.repairs, played.seals = self.model.repairs, self.model.seals
        played.disturbed = [name for one in self.reconcilers.values() for name in one.disturbed]
        return played

    def _actor(self, name: str) -> Actor:
        ops, url = self.plan.ops[name], self.monitor.url
        if name == "clock":
            return Actor(name, clock(ops, url, self.model), may_go=lambda: not self.on_their_way)
        if name == "migrator":
            return Actor(name, migrator(ops, url, self.model, self.around.migrations), is_patient=True)
        if name == "poisoner":
            return Actor(name, poisoner(ops, url, self.model))
        if name == "finance":
            return Actor(name, Finance(ops, self._url_of_product, self.around).act, is_product=True)
        if name not in RECONCILERS:
            return Actor(name, application(ops, url, self.model, self.on_their_way))
        self.reconcilers[name] = Reconciler(ops, self._url_of_product, self.around)
        return Actor(name, self.reconcilers[name].act, is_product=True)

    @property
    def _url_of_product(self) -> str:
        return worlds.url_of_product(self.plan.world, self.monitor.url)

    def _after(self, actor: Actor, at: str) -> None:
        self.model.step += 1
        self.report(actor.name, at)
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
        waiting = [
            other
            for other in self.actors
            if not other.is_product and not other.is_patient and other.state.name == "BLOCKED"
        ]
        self.waited = {other.name: self.waited.get(other.name, 0) for other in waiting}
        for other in waiting if actor.is_product else ():
            self.waited[other.name] += actor.pid in self.monitor.value(_BLOCKS, other.pid)
            if self.waited[other.name] > STATEMENTS_WAITED_FOR:
                raise ViolationError(f"{other.name} waits for {actor.name}, which went on to {actor.at}")

    def _require_committed(self, reconciler: Reconciler | None) -> None:
        counters, repairs = self._counters_now(), self._new_repairs()
        if reconciler is None or reconciler.run is None:
            self.model.require_counters(counters, self.model.repairs + len(repairs))
            return
        run = reconciler.run
        if foreign := [repair for repair in repairs if repair.run_id != run.run_id]:
            raise ViolationError(f"{foreign} came with a commit of run {run.run_id}")
        found = min(sum(not one.is_doubtful for one in drift.values()) for drift in run.compared or ({},))
        is_blocked = found > self.plan.world.max_repairs and not run.extent.approve_reason and not run.reads_increments
        self.model.commit_of_product(
            counters, repairs, run.transaction_began, run.began, is_blocked=is_blocked or run.extent.is_dry
        )
        if run.compared is not None and not run.is_compared:
            self._require_exact(run)
            run.is_compared = True
        if self.plan.world.settles and (ahead := self.monitor.query(_HORIZONS_AHEAD)):
            raise ViolationError(f"runs have horizons below which transactions go on: {ahead}")

    def _counters_now(self) -> dict[Key, int]:
        """Counters as the last committed changes left them."""
        for row in sorted(self.monitor.query(_CHANGED), key=lambda row: row.id):
            key: Key = row[1:4]
            if row.id > self.changed.get(key, 0):
                self.changed[key] = row.id
                self.counters[key] = row.usage_count
                if row.is_gone:
                    del self.counters[key]
        return self.counters

    def _new_repairs(self) -> list[Repair]:
        """Rows of the ledger that came since it was last asked; they need not come in the order of their ids."""
        rows = self.monitor.query(_REPAIRS, self.seen)
        self.seen += [row.id for row in rows]
        return [Repair(row.run_id, row[1:4], row.usage_count_before, row.usage_count_after) for row in rows]

    def _require_exact(self, run: Run) -> None:
        """A comparison finds what has drifted at its snapshot; what reads increments may look at fewer keys.

        Of a key whose events do not carry their own transactions, increments cannot tell.
        """
        unknown = self.model.poisoned | (self.model.foreign if run.reads_increments else set())
        rows = {row[:3]: Drifted(*row[3:]) for row in self.monitor.query(_DRIFT, run.run_id)}
        found = {key: drifted for key, drifted in rows.items() if key not in unknown}
        for there_was in run.compared or ():
            expected = {key: drifted for key, drifted in there_was.items() if key not in unknown}
            if found == expected or (run.reads_increments and found.items() <= expected.items()):
                return
        raise ViolationError(f"the comparison found {found}, at its snapshot there was {run.compared}")

    def _rest(self) -> None:
        """Once nobody acts, a run makes everything true, and the next ones find it so in every way there is."""
        if self.model.settles:
            for _ in range(2):  # a run takes a horizon above all that was written, once one has seen the log
                self._run(RunOptions())
            self._require_accounted()
            self.model.grow_older(let_an_hour_pass(self.monitor.connection))
        # What increments cannot tell, an audit finds.
        asked = (RunOptions(full=bool(self.model.foreign)), RunOptions(), RunOptions(full=True))
        for number, ask in enumerate(asked):
            ended = self._run(ask)
            if number == 0 and ended.outcome == "blocked":
                # An approval is of what a blocked run has shown.
                ended = self._run(RunOptions(approve_reason="the end", full=ask.full))
            if ended.outcome != "clean" and not self._is_excused(ended):
                raise ViolationError(f"run {number + 1} at rest ended {ended}")
            if number > 0 and self._new_repairs():
                raise ViolationError("something was repaired once all was true")
            self._require_at_rest(ended.run_id)
        with BillingDatabase(self._url_of_product).transaction() as connection:
            require_seals(connection)

    def _is_excused(self, ended: pipeline.Ended) -> bool:
        """Whether only poisoned and doubtful keys are not clean."""
        doubtful = len(self.model.drift()) - len(self.model.repairable())
        return ended.outcome == "not_clean" and 0 < (ended.mismatch_count or 0) <= len(self.model.poisoned) + doubtful

    def _run(self, ask: RunOptions) -> pipeline.Ended:
        database = BillingDatabase(self._url_of_product, keeps_connection=True)
        try:
            return pipeline.run(database, self.around.asked(ask))
        finally:
            database.close()

    def _require_accounted(self) -> None:
        step = self.model.step
        self.model.commit_of_product(self._counters_now(), self._new_repairs(), step, step, is_blocked=False)

    def _require_at_rest(self, run_id: str) -> None:
        self._require_accounted()
        counters: dict[Key, int] = {row[:3]: row.usage_count for row in self.monitor.query(_COUNTERS)}
        if counters != self._counters_now():
            raise ViolationError("counters are not what their changes left")  # of the simulation's own
        if left := self.model.repairable():
            raise ViolationError(f"at rest after a run, {left} differ")
        events = {row.id: (row.request_id, row[2:5], row.quantity) for row in self.monitor.query(_EVENTS)}
        expected = {id: (event.request_id, event.key, event.quantity) for id, event in self.model.events.items()}
        if events != expected:
            raise ViolationError(f"the log was changed in run {run_id}")


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
