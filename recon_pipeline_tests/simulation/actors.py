"""Those who act in a simulation: the application, the saboteur, the clock and the product's runs.

Each tells the model what it did as soon as it is committed. None of them waits for time to pass.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import psycopg
from psycopg import errors
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, OperationalError

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.store.database import BillingDatabase
from recon_pipeline_tests.reconciliation.billing import GATEWAY, USAGE, connected
from recon_pipeline_tests.reconciliation.traffic import APPLICATION
from recon_pipeline_tests.simulation import pipeline
from recon_pipeline_tests.simulation.model import (
    Added,
    Change,
    Deleted,
    Drifted,
    Erased,
    Event,
    Inserted,
    Key,
    Model,
    ViolationError,
)
from recon_pipeline_tests.simulation.pipeline import COMMIT, Asked, Ended
from recon_pipeline_tests.simulation.plan import COMMIT_UNKNOWN, SQLSTATES, TERMINATED, Op
from recon_pipeline_tests.simulation.scheduler import Actor

SETTLE_SECONDS = 1_800
_KEY = "(gateway_name, usage_type, gateway_customer_id, period_start, period_end) = (%s, %s, %s, %s, %s)"
_COLUMNS = "gateway_name, usage_type, gateway_customer_id, period_start, period_end"
_INSERT_EVENT = f"""
    insert into billing_usage_events ({_COLUMNS}, quantity, request_id) values (%s, %s, %s, %s, %s, %s, %s)
    on conflict do nothing
"""
_NEW_EVENTS = """
    select event.id, event.created_at, to_jsonb(event) ->> 'ingest_xid' as ingest_xid, quantity
    from billing_usage_events as event
    where request_id = %s and xmin = pg_current_xact_id()::xid and id <> all(%s)
"""
_INCREMENT = f"""
    insert into billing_usage_counters as counter ({_COLUMNS}, usage_count) values (%s, %s, %s, %s, %s, %s)
    on conflict ({_COLUMNS}) do update set usage_count = counter.usage_count + excluded.usage_count
"""
_RECORD = "select record_billing_usage_event(%s, %s, %s, %s, %s, %s, %s)"
_AN_HOUR_PASSES = """
    set session_replication_role = replica;
    update billing_usage_events set created_at = created_at - interval '1 hour';
    set session_replication_role = origin;
    update recon.reconciliation_run as run set started_at = run.started_at - interval '1 hour'
    from (
        select run_id from recon.reconciliation_run where outcome <> 'running' for update skip locked
    ) as free
    where run.run_id = free.run_id;
    update recon.event_log as log set first_seen_at = log.first_seen_at - interval '1 hour'
    from (select is_known from recon.event_log for update skip locked) as free
    where log.is_known
"""
_COUNT_NOW = "select pg_stat_force_next_flush()"
"""So that Postgres counts a change when it is committed and not some time within a second."""


@dataclass
class Session:
    """A session of the application; every statement of its waits for its turn."""

    actor: Actor
    model: Model
    connection: psycopg.Connection[Any]
    statements: int = 0
    seen: list[UUID] = field(default_factory=list)

    def query(self, name: str, text: str, *values: object) -> list[Any]:
        """The rows that a statement returns."""
        self.actor.holds_more = self.statements > 0
        self.actor.stop(name)
        cursor = self.connection.execute(text.encode(), values)
        self.statements += 1
        return cursor.fetchall() if cursor.description else []

    def end(self, changes: Sequence[Change], *, is_rolled_back: bool) -> None:
        """Commit and tell the model, or roll back."""
        self.actor.holds_more = False
        self.actor.stop("rollback" if is_rolled_back else COMMIT)
        self.statements = 0
        if is_rolled_back:
            self.connection.rollback()
            return
        self.connection.execute(_COUNT_NOW)
        self.connection.commit()
        self.model.commit(changes)

    def new_events(self, key: Key, request_id: str) -> list[Change]:
        """What this transaction has put into the log for a request id since it was last asked."""
        rows = self.connection.execute(_NEW_EVENTS, (request_id, self.seen)).fetchall()
        self.seen += [row.id for row in rows]
        order = [(*([int(row.ingest_xid)] if row.ingest_xid else []), row.created_at, row.id) for row in rows]
        return [
            Inserted(str(row.id), Event(request_id, key, row.quantity, arrived))
            for row, arrived in zip(rows, order, strict=True)
        ]


def application(ops: Sequence[Op], url: str, model: Model, in_flight: set[str]) -> Callable[[Actor], None]:
    """Records usage, as applications do; gives up what Postgres cancels to break a deadlock among applications."""

    def act(actor: Actor) -> None:
        with connected(url, application_name=APPLICATION) as connection:
            session = Session(actor, model, connection)
            actor.pid = connection.info.backend_pid
            for op in ops:
                actor.stop("begin")
                in_flight.add(actor.name)
                try:
                    _WRITES[op.kind](session, op)
                except errors.DeadlockDetected:
                    connection.rollback()
                    session.statements = 0
                finally:
                    in_flight.discard(actor.name)

    return act


def _record(session: Session, op: Op) -> None:
    changes: list[Change] = []
    for number, key in enumerate(op.keys):
        request_id = f"{op.request_id}/{number}" if number else op.request_id
        values = (GATEWAY, key[0], USAGE, request_id, *key[1:], op.quantity)
        ((is_new,),) = session.query("record_billing_usage_event", _RECORD, *values)
        if is_new:
            changes += [*session.new_events(key, request_id), Added(key, op.quantity)]
    session.end(changes, is_rolled_back=op.is_rolled_back)


def _split(session: Session, op: Op) -> None:
    (key,) = op.keys
    session.query("insert event", _INSERT_EVENT, GATEWAY, USAGE, *key, op.quantity, op.request_id)
    changes = session.new_events(key, op.request_id)
    if changes and op.quantity > 0:
        session.query("increment", _INCREMENT, GATEWAY, USAGE, *key, op.quantity)
        changes.append(Added(key, op.quantity))
    session.end(changes, is_rolled_back=op.is_rolled_back)


def _two(session: Session, op: Op) -> None:
    (key,) = op.keys
    session.query("insert event", _INSERT_EVENT, GATEWAY, USAGE, *key, op.quantity, op.request_id)
    changes = session.new_events(key, op.request_id)
    session.end(changes, is_rolled_back=op.is_rolled_back)
    if changes and not op.is_rolled_back:
        session.query("increment", _INCREMENT, GATEWAY, USAGE, *key, op.quantity)
        session.end([Added(key, op.quantity)], is_rolled_back=False)


def _set(session: Session, op: Op) -> None:
    (key,) = op.keys
    where = (GATEWAY, USAGE, *key)
    select = f"select usage_count from billing_usage_counters where {_KEY} for update"
    changes: list[Change] = []
    for (before,) in session.query("lock counter", select, *where):
        session.query(
            "set counter", f"update billing_usage_counters set usage_count = %s where {_KEY}", op.quantity, *where
        )
        changes.append(Added(key, op.quantity - before))
    session.end(changes, is_rolled_back=op.is_rolled_back)


def _delete(session: Session, op: Op) -> None:
    (key,) = op.keys
    delete = f"delete from billing_usage_counters where {_KEY} returning 1"
    gone = session.query("delete counter", delete, GATEWAY, USAGE, *key)
    session.end([Deleted(key)] if gone else [], is_rolled_back=op.is_rolled_back)


def _twice(session: Session, op: Op) -> None:
    (key,) = op.keys
    session.query("replay increment", _INCREMENT, GATEWAY, USAGE, *key, op.quantity)
    session.end([Added(key, op.quantity)], is_rolled_back=op.is_rolled_back)


def _lost(session: Session, op: Op) -> None:
    (key,) = op.keys
    session.query("insert event", _INSERT_EVENT, GATEWAY, USAGE, *key, op.quantity, op.request_id)
    session.end(session.new_events(key, op.request_id), is_rolled_back=op.is_rolled_back)


def _orphan(session: Session, op: Op) -> None:
    key = ("nobody", *op.keys[0][1:])
    _twice(session, replace(op, keys=(key,)))


def _erase(session: Session, op: Op) -> None:
    event = _picked(session.model, op)
    gone = event and session.query(
        "erase event", "delete from billing_usage_events where id = %s returning 1", UUID(event[0])
    )
    session.end([Erased(event[0])] if event and gone else [], is_rolled_back=op.is_rolled_back)


def _edit(session: Session, op: Op) -> None:
    event = _picked(session.model, op)
    update = "update billing_usage_events set quantity = %s where id = %s returning id, created_at"
    changed = event and session.query("edit event", update, op.quantity, UUID(event[0]))
    changes = [Inserted(event[0], replace(event[1], quantity=op.quantity))] if event and changed else []
    session.end(changes, is_rolled_back=op.is_rolled_back)


def _picked(model: Model, op: Op) -> tuple[str, Event] | None:
    """One of the events that are committed, the same one whatever ids and transactions they were given."""
    events = sorted(model.events.items(), key=lambda item: (item[1].request_id, item[1].arrived))
    return events[op.pick % len(events)] if events else None


_WRITES: dict[str, Callable[[Session, Op], None]] = {
    "record": _record,
    "many": _record,
    "split": _split,
    "two": _two,
    "set": _set,
    "delete": _delete,
    "twice": _twice,
    "lost": _lost,
    "orphan": _orphan,
    "erase": _erase,
    "edit": _edit,
}


def clock(ops: Sequence[Op], url: str, model: Model) -> Callable[[Actor], None]:
    """Lets an hour pass: everything that is written down becomes an hour older."""

    def act(actor: Actor) -> None:
        with connected(url, application_name=APPLICATION) as connection:
            actor.pid = connection.info.backend_pid
            for _ in ops:
                actor.stop("an hour passes")
                connection.execute(_AN_HOUR_PASSES)
                connection.commit()
                model.grow_older()

    return act


@dataclass
class Run:
    """One run of the product that takes its turns, and what is to be held against it.

    Attributes:
        op: What it is asked to do, and what goes wrong.
        run_id: Its id.
        snapshot: What had drifted when its last REPEATABLE READ transaction took its snapshot.
        snapshot_step: When that was.
        compared: The same for its comparison, once it has made one; checked when that is committed.
        compared_step: When that took its snapshot.
        is_compared: That its comparison is right was checked.
        was_disturbed: Something was made to go wrong in it.
    """

    op: Op
    actor: Actor
    model: Model
    extent: Asked
    run_id: str = ""
    boundaries: int = 0
    snapshot: dict[Key, Drifted] = field(default_factory=dict)
    snapshot_step: int = 0
    compared: dict[Key, Drifted] | None = None
    compared_step: int = 0
    is_compared: bool = False
    was_disturbed: bool = False

    def before_statement(self, connection: Connection, name: str, parameters: dict[str, Any]) -> str | None:
        """Wait for the turn; then let the fault strike if this is its place."""
        session = _session(connection)
        self.actor.pid = session.info.backend_pid
        if name in ("session_settings", "enter_chunk"):
            self.actor.lock_timeout_ms = int(parameters["lock_timeout"].removesuffix("ms"))
            parameters |= {"lock_timeout": "10min", "statement_timeout": "10min"}
        self.actor.stop(name)
        self.boundaries += 1
        is_repeatable = connection.get_isolation_level() == "REPEATABLE READ"
        if (name == "session_settings" and is_repeatable) or (name == "forget_drift" and not is_repeatable):
            self.snapshot, self.snapshot_step = self.model.drift(), self.model.step
        if name == "forget_drift":
            self.compared, self.compared_step = self.of_extent(self.snapshot), self.snapshot_step
        return self._struck()

    def before_commit(self, connection: Connection) -> None:
        """Wait for the turn; then commit and cut the connection if that is the fault."""
        session = _session(connection)
        self.actor.stop(COMMIT)
        self.boundaries += 1
        session.execute(_COUNT_NOW)
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

    def _struck(self) -> str | None:
        if self.was_disturbed or not self.op.fault or self.boundaries < self.op.nth or self.op.fault == COMMIT_UNKNOWN:
            return None
        self.was_disturbed = True
        if self.op.fault == TERMINATED:
            return "select pg_terminate_backend(pg_backend_pid())"
        state = SQLSTATES[self.op.fault]
        return f"do $$ begin raise exception 'a fault of the simulation' using errcode = '{state}'; end $$"

    def of_extent(self, drift: dict[Key, Drifted]) -> dict[Key, Drifted]:
        return {key: drifted for key, drifted in drift.items() if is_in(self.extent, key)}


def is_in(extent: Asked, key: Key) -> bool:
    """Whether a run looks at a key."""
    months = BillingMonth.parse(extent.first).start, BillingMonth.parse(extent.last).end
    return months[0] <= key[1] < months[1] and (not extent.customers or key[0] in extent.customers)


_EXTENTS: dict[str, Asked] = {
    "tick": Asked(),
    "news": Asked(first="2025-03"),
    "full": Asked(full=True),
    "backfill": Asked(first="2025-05"),
    "dry": Asked(is_dry=True),
    "approve": Asked(approve_reason="the operator has looked at it"),
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
    model: Model
    max_repairs: int
    run: Run | None = None
    ended: list[Ended] = field(default_factory=list)
    disturbed: list[str] = field(default_factory=list)

    def act(self, actor: Actor) -> None:
        """Run after run."""
        for op in self.ops:
            actor.stop("begin a run")
            extent = _EXTENTS[op.kind] if op.kind in _EXTENTS else Asked(customers=(op.keys[0][0],))
            self.run = run = Run(op, actor, self.model, extent)
            database = BillingDatabase(self.url, keeps_connection=True)
            pipeline.steer(database, run)
            try:
                ended = pipeline.run(database, extent, told=lambda run_id, run=run: setattr(run, "run_id", run_id))
            finally:
                database.close()
            self.ended.append(ended)
            if run.was_disturbed:
                self.disturbed.append(op.fault or "lock timeout")
            self._judge(run, ended)

    def _judge(self, run: Run, ended: Ended) -> None:
        if ended.outcome == "failed" and not run.was_disturbed:
            raise ViolationError(f"a run failed of itself: {ended.error}")
        wrong = len(run.of_extent(run.snapshot))
        if ended.mismatch_count is not None and ended.mismatch_count > wrong:
            raise ViolationError(f"the last check found {ended.mismatch_count} keys that differ, {wrong} did")
        if run.extent.full and ended.outcome in ("clean", "not_clean") and ended.mismatch_count != wrong:
            raise ViolationError(f"the last check found {ended.mismatch_count} keys that differ, {wrong} did")
        if "aggregates_match_events" in ended.failed_checks:
            raise ViolationError("an audit found aggregates that are not what the log adds up to")


def _session(connection: Connection) -> psycopg.Connection[Any]:
    session = connection.connection.dbapi_connection
    assert isinstance(session, psycopg.Connection)
    return session
