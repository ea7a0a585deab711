"""Actors that take turns: one statement at a time, in an order that somebody else decides.

Each actor is a thread with a connection of its own and stops before each statement until it is let go. A session that
waits in Postgres for a lock is put aside, and goes on by itself when it has the lock. Time is no part of it: a lock
timeout is a decision like any other. Only what Postgres itself does after a second is left to it: to break a deadlock.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import psycopg

from recon_pipeline_tests.simulation.model import ViolationError

TIMEOUT = "timeout:"
STUCK_GLANCES = 20_000
"""About a minute; counted and not timed, since this process may be stopped for a while."""

DEADLOCK_TIMEOUT_MS = 300
"""Of the simulation's server: long beside one of our steps, short beside a test."""

_GLANCE_SECONDS = 0.002
_WAITING = "select pid from pg_locks where not granted and pid = any(%s)"
_WAITS_FOR = "select pid, pg_blocking_pids(pid) from unnest(%s::int[]) as pid"


class Stop(BaseException):
    """Ends an actor's thread; no code between catches it."""


class State(Enum):
    """Where an actor is."""

    READY = "stopped before a statement"
    RUNNING = "on its way to the next one"
    BLOCKED = "waiting in Postgres for a lock"
    DONE = "done"


@dataclass
class Actor:
    """One thread that takes its turns.

    Attributes:
        name: Unique; schedules name it.
        act: What it does, given itself.
        may_go: Whether it may take its next turn now.
        is_product: Its waits end by timeouts, and nobody may be cancelled because of it.
        is_patient: It requests an exclusive lock on a table, and may wait for its readers.
        pid: Of its session, while it has one.
        at: The statement before which it is stopped.
        lock_timeout_ms: After which its wait for a lock would end.
        holds_more: It has done more in this transaction than it is doing now, so others may wait for it.
        is_timed_out: The schedule ended its wait for a lock.
        trace: What it did, for a person.
    """

    name: str
    act: Callable[["Actor"], None]
    may_go: Callable[[], bool] = lambda: True
    is_product: bool = False
    is_patient: bool = False
    pid: int | None = None
    at: str = "start"
    lock_timeout_ms: int = 0
    holds_more: bool = False
    is_timed_out: bool = False
    state: State = State.RUNNING
    error: BaseException | None = None
    stopping: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)
    _go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; the actor comes to its first stop by itself."""
        self.thread = threading.Thread(target=self._live, name=self.name, daemon=True)
        self.thread.start()

    def stop(self, at: str) -> None:
        """Called by the actor itself before each statement: wait for the turn."""
        with self.changed:
            self.at, self.state = at, State.READY
            self.changed.notify_all()
        self._go.acquire()
        if self.stopping:
            raise Stop

    def go(self) -> None:
        """Let it go as far as its next stop."""
        self.state = State.RUNNING
        self._go.release()

    def _live(self) -> None:
        try:
            self.stop("start")
            self.act(self)
        except Stop:
            pass
        except BaseException as error:  # noqa: BLE001 - reported by the scheduler, in its own thread
            self.error = error
        with self.changed:
            self.state = State.DONE
            self.changed.notify_all()


@dataclass
class Scheduler:
    """Lets actors go in turn.

    Attributes:
        actors: All of them.
        monitor: A connection of its own, in autocommit.
        choose: Picks one of the decisions that are open.
        after: Called with the actor and its step, once all actors wait again.
        decided: What was decided so far.
    """

    actors: Sequence[Actor]
    monitor: psycopg.Connection[Any]
    choose: Callable[[Sequence[str]], str]
    after: Callable[[Actor, str], None]
    decided: list[str] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def run(self) -> None:
        """Until every actor is done.

        Raises:
            ViolationError: What an actor or `after` found, or nobody could go on.
        """
        try:
            for actor in self.actors:
                actor.changed = self.changed
                actor.start()
            self._rest()
            while not all(actor.state is State.DONE for actor in self.actors):
                self._one_turn()
        finally:
            self._end()

    def _one_turn(self) -> None:
        open_turns = self._open()
        if not open_turns:
            self._break_the_knot()
            return
        decision = self.choose(open_turns)
        self.decided.append(decision)
        actor = self._named(decision.removeprefix(TIMEOUT))
        at = actor.at
        if decision.startswith(TIMEOUT):
            self._time_out(actor)
        else:
            actor.go()
        self._rest()
        self.after(actor, at)
        self._resolve_deadlocks()

    def _open(self) -> list[str]:
        ready = [a.name for a in self.actors if a.state is State.READY and a.may_go()]
        waiting = [TIMEOUT + a.name for a in self.actors if a.state is State.BLOCKED and a.is_product]
        return ready + waiting if ready else []

    def _break_the_knot(self) -> None:
        """Nobody can go: the first of the product's that waits for a lock does not get it in time."""
        waiting = [actor for actor in self.actors if actor.state is State.BLOCKED and actor.is_product]
        if waiting:
            self._time_out(waiting[0])
            self._rest()
            return
        if any(actor.state is State.BLOCKED for actor in self.actors):
            self._until_somebody_moves()
            return
        at = ", ".join(f"{actor.name} before {actor.at}" for actor in self.actors if actor.state is not State.DONE)
        raise ViolationError(f"nobody can go on: {at}")

    def _time_out(self, actor: Actor) -> None:
        actor.is_timed_out = True
        actor.state = State.RUNNING
        self.monitor.execute("select pg_cancel_backend(%s)", (actor.pid,))

    def _rest(self) -> None:
        """Wait until every actor is stopped, done or waiting for a lock that it will not have yet."""
        while True:
            self._until_none_runs()
            blocked = [actor for actor in self.actors if actor.state is State.BLOCKED]
            waiting = self._waiting(blocked) if blocked else set()
            woken = [actor for actor in blocked if actor.pid not in waiting]
            for actor in woken:
                with self.changed:
                    if actor.state is State.BLOCKED:
                        actor.state = State.RUNNING
            if not woken:
                return

    def _until_none_runs(self) -> None:
        for _ in range(STUCK_GLANCES):
            with self.changed:
                running = [actor for actor in self.actors if actor.state is State.RUNNING]
                if running and self.changed.wait(_GLANCE_SECONDS):
                    continue
            if not running:
                return
            waiting = self._waiting(running)
            with self.changed:
                newly = [a for a in running if a.pid in waiting and a.state is State.RUNNING and not a.is_timed_out]
                for actor in newly:
                    actor.state = State.BLOCKED
            if any(actor.holds_more and not actor.is_product for actor in newly) and not self._knot():
                # Who may be part of a deadlock looks for one before anybody goes on: the last to join is cancelled.
                time.sleep(DEADLOCK_TIMEOUT_MS * 1.2 / 1_000)
        raise ViolationError(f"nobody came to rest: {', '.join(f'{a.name} after {a.at}' for a in self.actors)}")

    def _waiting(self, actors: Sequence[Actor]) -> set[int]:
        pids = [actor.pid for actor in actors if actor.pid is not None]
        return {pid for (pid,) in self.monitor.execute(_WAITING, (pids,)).fetchall()}

    def _resolve_deadlocks(self) -> None:
        """A wait of the product's that is shorter than Postgres's patience ends now; others are Postgres's."""
        knot = self._knot()
        ours = [actor for actor in knot if actor.is_product]
        if not knot:
            return
        if len(ours) == len(knot):
            knotted = " and ".join(f"{actor.name} before {actor.at}" for actor in knot)
            raise ViolationError(f"runs wait for each other, as if they locked in no order: {knotted}")
        short = [actor for actor in ours if actor.lock_timeout_ms < 1_000]
        if short:
            self._time_out(short[0])
            self._rest()
        elif ours:
            knotted = " and ".join(f"{actor.name} before {actor.at}" for actor in knot)
            raise ViolationError(f"the product is part of a deadlock that may cancel the application: {knotted}")
        else:
            self._until_somebody_moves()

    def _knot(self) -> list[Actor]:
        """Those who wait for each other."""
        blocked = {actor.pid: actor for actor in self.actors if actor.state is State.BLOCKED}
        if len(blocked) < 2:
            return []
        waits_for = dict(self.monitor.execute(_WAITS_FOR, (list(blocked),)).fetchall())
        return [actor for pid, actor in blocked.items() if _reaches_itself(pid, waits_for)]

    def _until_somebody_moves(self) -> None:
        blocked = [actor for actor in self.actors if actor.state is State.BLOCKED]
        for _ in range(STUCK_GLANCES):
            if any(actor.state is not State.BLOCKED for actor in blocked):
                self._rest()
                return
            time.sleep(_GLANCE_SECONDS)
        raise ViolationError(f"{', '.join(actor.name for actor in blocked)} wait for ever")

    def _named(self, name: str) -> Actor:
        return next(actor for actor in self.actors if actor.name == name)

    def _end(self) -> None:
        """Let no thread survive."""
        for actor in self.actors:
            if actor.state is not State.DONE:
                actor.stopping = True
                actor._go.release()
        pids = [actor.pid for actor in self.actors if actor.state in (State.BLOCKED, State.RUNNING) and actor.pid]
        if pids and not self.monitor.closed:
            self.monitor.execute("select pg_terminate_backend(pid) from unnest(%s::int[]) as pid", (pids,))
        for actor in self.actors:
            if actor.thread is not None:
                actor.thread.join(10)


def _reaches_itself(start: int | None, waits_for: dict[int, list[int]]) -> bool:
    seen: set[int] = set()
    left = list(waits_for.get(start or 0, []))
    while left:
        pid = left.pop()
        if pid == start:
            return True
        if pid not in seen:
            seen.add(pid)
            left += waits_for.get(pid, [])
    return False
