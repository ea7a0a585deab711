"""Runs of the product among the actors: each statement waits for its turn, and what is held against each run.

Knows of the product what any of its versions has: assets, transactions, time limits, a table of what differs.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
from psycopg import errors
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, OperationalError

from recon_pipeline.core.guards import Budgets
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.simulation import pipeline
from recon_pipeline_tests.simulation.actors import COUNT_NOW, SETTLE_SECONDS
from recon_pipeline_tests.simulation.migrations import Migrations
from recon_pipeline_tests.simulation.model import Drifted, Key, Model, ViolationError
from recon_pipeline_tests.simulation.pipeline import COMMIT, Ended, RunOptions, Statement
from recon_pipeline_tests.simulation.plan import COMMIT_UNKNOWN, FROZEN, SQLSTATES, TERMINATED, Op, World
from recon_pipeline_tests.simulation.scheduler import Actor

COMPARES = ("forget_drift", "compare_counters")
"""The first of these in the step that compares belongs to the transaction of the comparison."""

LONGEST_FREEZE_MS = 5_000
"""So long may an increment wait for a process of ours that has stopped."""

LAST_CHECK = "counters_match_event_sums"
ALARMS = {LAST_CHECK, "drift_is_within_budgets", "aggregates_match_events"}
"""Checks that say that something is wrong with counters or with what they are held against."""

_ROOMY = "10min"
_GLANCES = 5_000
_SET = re.compile(r"(\w+_timeout)('?\s*(?:=|\bto\b|,)\s*)'?(\d+)\s*(ms|s|min)?\b'?", re.IGNORECASE)
_UNITS = {"ms": 1, "s": 1_000, "min": 60_000}
_IDLE = ("idle_in_transaction_session_timeout", "transaction_timeout")
_LIMITS = f"""
    select name, setting::int from pg_settings
    where setting <> '0' and name in {("lock_timeout", "statement_timeout", *_IDLE)}
"""
_LOCKS_COUNTERS = """
    select exists (
        select from pg_locks
        where pid = %s and granted and relation = 'billing_usage_counters'::regclass
            and mode in ('RowShareLock', 'RowExclusiveLock')
    )
"""
_IS_THERE = "select exists (select from pg_stat_activity where pid = %s)"


@dataclass
class Surroundings:
    """What a run is played in.

    Attributes:
        between: Happens before each statement and commit of it.
    """

    world: World
    model: Model
    monitor: Billing
    migrations: Migrations
    between: Callable[[], object] = lambda: None

    def asked(self, ask: RunOptions) -> RunOptions:
        """The same, with what the environment says in this world."""
        # Shares are no part of it: where so few keys are, many of them are wrong.
        budgets = Budgets(self.world.max_repairs, 1, 1, 10**9, 10**9)
        return replace(ask, settle_seconds=SETTLE_SECONDS if self.world.settles else 0, budgets=budgets)


@dataclass
class Run:
    """One run of the product that takes its turns, and what is to be held against it.

    Attributes:
        op: What it is asked to do, and what goes wrong.
        run_id: Its id.
        asset: What it is at.
        began: The step in which it began.
        transaction_began: The step in which its transaction did.
        has_snapshot: Its transaction has taken one.
        is_repeatable: And keeps it; None as long as nobody asked.
        limits_ms: The time limits of its transaction as it set them, by name.
        snapshot: What had drifted when its last snapshot was taken: that of a REPEATABLE READ transaction, or else
            that of a statement of the last check.
        compared: The same for its comparison, once it has made one, in every way that is right; checked when that is
            committed.
        is_compared: That its comparison is right was checked.
        was_disturbed: Something was made to go wrong in it.
        saw_rows_hidden: Row level security was on at some statement of it.
        migrations_before: How many migrations had begun before it, but for one that goes on.
    """

    op: Op
    actor: Actor
    around: Surroundings
    extent: RunOptions
    run_id: str = ""
    asset: str = ""
    boundaries: int = 0
    began: int = 0
    transaction_began: int = 0
    has_snapshot: bool = False
    is_repeatable: bool | None = None
    limits_ms: dict[str, int] = field(default_factory=dict)
    usual_limits_ms: dict[str, int] = field(default_factory=dict)
    snapshot: dict[Key, Drifted] = field(default_factory=dict)
    in_check: list[dict[Key, Drifted]] = field(default_factory=list)
    compared: list[dict[Key, Drifted]] | None = None
    is_compared: bool = False
    was_disturbed: bool = False
    saw_rows_hidden: bool = False
    migrations_before: int = 0
    old_horizon: int = 0

    def begins(self, run_id: str) -> None:
        """It has an id now."""
        going_on, model = self.around.migrations, self.around.model
        self.run_id, self.began, self.old_horizon = run_id, model.step, model.old_horizon
        self.migrations_before = going_on.begun - going_on.is_active
        self.snapshot = model.drift()

    def enters(self, asset: str) -> None:
        """It comes to the next of its steps."""
        self.asset = LAST_CHECK if asset.endswith(LAST_CHECK) else asset

    def begins_transaction(self) -> None:
        """Time limits are those of the session again, and there is no snapshot yet."""
        self.has_snapshot, self.is_repeatable, self.transaction_began = False, None, self.around.model.step
        self.limits_ms = dict(self.usual_limits_ms)

    def connects(self, session: psycopg.Connection[Any]) -> None:
        """Remember the time limits of a new session, and give it all the time that a schedule takes."""
        self.usual_limits_ms = dict(session.execute(_LIMITS.encode()).fetchall())
        for name in self.usual_limits_ms:
            session.execute(f"set {name} = '{_ROOMY}'".encode())
        session.commit()

    def before_statement(self, connection: Connection, statement: Statement) -> None:
        """Wait for the turn; then let the fault strike if this is its place."""
        self.actor.pid = _session(connection).info.backend_pid
        self._give_time(statement)
        self.actor.stop(statement.name)
        self.boundaries += 1
        self.around.between()
        self.saw_rows_hidden |= self.around.migrations.hides_rows
        is_compared_now = self.asset != LAST_CHECK and statement.name in COMPARES and self.compared is None
        if self.is_repeatable is None:
            self.is_repeatable = connection.get_isolation_level() == "REPEATABLE READ"
        self._look(self.is_repeatable, statement, is_compared_now)
        if is_compared_now:
            self.compared = [self.of_extent(self.snapshot), self.of_extent(self._by_older_horizon())]
        self._strike(connection, statement)

    def before_commit(self, connection: Connection) -> None:
        """Wait for the turn; then commit and cut the connection if that is the fault."""
        session = _session(connection)
        self.actor.stop(COMMIT)
        self.boundaries += 1
        self.around.between()
        session.execute(COUNT_NOW)
        if self.op.fault == COMMIT_UNKNOWN and self.boundaries >= self.op.nth and not self.was_disturbed:
            self.was_disturbed = True
            session.commit()
            session.close()

    def at_error(self, error: DBAPIError) -> DBAPIError | None:
        """A wait that the schedule ended looks like one that lock_timeout ended; what was compared is taken back."""
        if not self.is_compared:
            self.compared = None
        if not self.actor.is_timed_out:
            return None
        self.actor.is_timed_out, self.was_disturbed = False, True
        return OperationalError(
            error.statement, error.params, errors.LockNotAvailable("canceling statement due to lock timeout")
        )

    def of_extent(self, drift: dict[Key, Drifted]) -> dict[Key, Drifted]:
        """Those that the run covers."""
        return {key: drifted for key, drifted in drift.items() if is_in(self.extent, key)}

    @property
    def met_migration(self) -> bool:
        """Whether somebody held or wanted a table for himself while it went on."""
        return self.around.migrations.begun > self.migrations_before

    @property
    def reads_increments(self) -> bool:
        """Whether it may know less than the log says of keys with foreign events."""
        return self.around.world.is_incremental and not self.extent.full

    def _look(self, is_repeatable: bool, statement: Statement, is_compared_now: bool) -> None:
        """Remember what is wrong at the snapshot that the statement will see."""
        is_first = statement.takes_snapshot and not self.has_snapshot
        self.has_snapshot |= statement.takes_snapshot
        if (is_repeatable and is_first) or (is_compared_now and not is_repeatable):
            self.snapshot = self.around.model.drift()
        if self.asset == LAST_CHECK and statement.takes_snapshot:
            if is_repeatable and is_first:
                self.in_check.append(self.snapshot)
            elif not is_repeatable:
                self.in_check.append(self.around.model.drift())

    def _by_older_horizon(self) -> dict[Key, Drifted]:
        """What had drifted by what was old enough when the run began."""
        model = self.around.model
        if model.old_horizon == self.old_horizon:
            return self.snapshot
        now, model.old_horizon = model.old_horizon, self.old_horizon
        model.sum_anew()
        drift = model.drift()
        model.old_horizon = now
        model.sum_anew()
        return drift

    def _give_time(self, statement: Statement) -> None:
        """Time is no part of a simulation: what a schedule takes for is longer than any limit."""

        def roomy(found: re.Match[str]) -> str:
            self.limits_ms[found[1].lower()] = int(found[3]) * _UNITS[(found[4] or "ms").lower()]
            between = found[2] if "'" not in found[2] else found[2].rstrip()
            return f"{found[1]}{between} '{_ROOMY}'"

        statement.text = _SET.sub(roomy, statement.text)
        for name, value in statement.parameters.items():
            if name.endswith("_timeout") and (found := re.fullmatch(r"(\d+)\s*(ms|s|min)?", str(value))):
                self.limits_ms[name] = int(found[1]) * _UNITS[found[2] or "ms"]
                statement.parameters[name] = _ROOMY
        self.actor.lock_timeout_ms = self.limits_ms.get("lock_timeout", 0)

    def _strike(self, connection: Connection, statement: Statement) -> None:
        fault = self.op.fault
        if self.was_disturbed or not fault or self.boundaries < self.op.nth or fault == COMMIT_UNKNOWN:
            return
        if fault == FROZEN:
            self._freeze(_session(connection))
            return
        self.was_disturbed = True
        if fault == TERMINATED:
            statement.become("select pg_terminate_backend(pg_backend_pid())")
            return
        state = SQLSTATES[fault]
        statement.become(f"do $$ begin raise exception 'a fault of the simulation' using errcode = '{state}'; end $$")

    def _freeze(self, session: psycopg.Connection[Any]) -> None:
        """Its process stops in the middle of a transaction for so long that the server ends its session.

        Raises:
            ViolationError: The server does not, though the session holds counters.
        """
        limits = [self.limits_ms[name] for name in _IDLE if self.limits_ms.get(name)]
        holds = self.around.monitor.value(_LOCKS_COUNTERS, session.info.backend_pid)
        if holds and min(limits, default=LONGEST_FREEZE_MS + 1) > LONGEST_FREEZE_MS:
            duration = f"for {min(limits)} ms" if limits else "for ever"
            raise ViolationError(f"a process that is frozen before {self.actor.at} holds its counters {duration}")
        if not limits or session.info.transaction_status != psycopg.pq.TransactionStatus.INTRANS:
            return  # it has no lock that another session waits for; it is frozen at some later statement
        self.was_disturbed = True
        session.execute("set idle_in_transaction_session_timeout = 1")
        for _ in range(_GLANCES):
            if not self.around.monitor.value(_IS_THERE, session.info.backend_pid):
                return
        raise ViolationError("a session that idles in its transaction is not ended")


def is_in(extent: RunOptions, key: Key) -> bool:
    """Whether a run covers a key."""
    months = BillingMonth.parse(extent.first).start, BillingMonth.parse(extent.last).end
    return months[0] <= key[1] < months[1] and (not extent.customers or key[0] in extent.customers)


_EXTENTS: dict[str, RunOptions] = {
    "tick": RunOptions(),
    "news": RunOptions(first="2025-03"),
    "full": RunOptions(full=True),
    "backfill": RunOptions(first="2025-05"),
    "dry": RunOptions(is_dry=True),
    "approve": RunOptions(approve_reason="the operator has looked at it"),
}


@dataclass
class Reconciler:
    """Runs of the product, one after the other on a connection that is kept.

    Attributes:
        run: The one that is going on.
        ended: How the others ended.
        disturbed: What was made to go wrong in them.
    """

    ops: Sequence[Op]
    url: str
    around: Surroundings
    run: Run | None = None
    ended: list[Ended] = field(default_factory=list)
    disturbed: list[str] = field(default_factory=list)

    def act(self, actor: Actor) -> None:
        """Run after run."""
        for op in self.ops:
            actor.stop("begin a run")
            extent = _EXTENTS[op.kind] if op.kind in _EXTENTS else RunOptions(customers=(op.keys[0][0],))
            self.run = run = Run(op, actor, self.around, extent)
            database = BillingDatabase(self.url, keeps_connection=True)
            pipeline.steer(database, run)
            try:
                ended = pipeline.run(database, self.around.asked(extent), report=run.begins, entering=run.enters)
            finally:
                database.close()
            self.ended.append(ended)
            if run.was_disturbed:
                self.disturbed.append(op.fault or "lock timeout")
            self._check(run, ended)

    def _check(self, run: Run, ended: Ended) -> None:
        """No failure without a cause, and no alarm without a wrong counter."""
        if ended.outcome == "failed" and not self._may_fail(run, ended):
            raise ViolationError(f"a run failed of itself: {ended.error}")
        if self.around.world.is_calm and (
            ended.outcome not in ("clean", "compared") or ALARMS & set(ended.failed_checks)
        ):
            raise ViolationError(f"nothing is wrong, and a run ended {ended}")
        model = self.around.model
        unknown = len(model.poisoned) + (len(model.foreign) if run.reads_increments else 0)
        if ended.outcome == "blocked":
            # All counters decide whether a log seems lost, not only those of the customers of the run.
            found = run.compared[0] if run.compared is not None else {**run.snapshot, **model.drift()}
            if not found and not unknown:
                raise ViolationError(f"a run was blocked, and nothing was wrong: {ended.error}")
        if ended.mismatch_count is not None:
            self._check_last_asset_check(run, ended.mismatch_count, ended, unknown)
        if "aggregates_match_events" in ended.failed_checks and not model.foreign:
            raise ViolationError("an audit found aggregates that are not what the log adds up to")

    def _may_fail(self, run: Run, ended: Ended) -> bool:
        is_hidden = run.saw_rows_hidden and "Row level security" in ended.error
        return run.was_disturbed or (run.met_migration and "put off" in ended.error) or is_hidden

    def _check_last_asset_check(self, run: Run, mismatches: int, ended: Ended, unknown: int) -> None:
        wrong = [len(run.of_extent(drift)) for drift in run.in_check] or [0]
        if mismatches > max(wrong) + unknown:
            raise ViolationError(f"the last check found {mismatches} keys that differ, {max(wrong)} did")
        if run.extent.full and ended.outcome in ("clean", "not_clean") and mismatches < min(wrong):
            raise ViolationError(f"the last check found {mismatches} keys that differ, {min(wrong)} did")


def _session(connection: Connection) -> psycopg.Connection[Any]:
    session = connection.connection.dbapi_connection
    assert isinstance(session, psycopg.Connection)
    return session
