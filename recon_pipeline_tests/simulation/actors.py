"""Those who act in a simulation beside the product: the application, the saboteur and the clock.

Each tells the model what it did as soon as it is committed. None of them waits for time to pass.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import psycopg
from psycopg import errors

from recon_pipeline_tests.reconciliation.billing import GATEWAY, USAGE, connected
from recon_pipeline_tests.reconciliation.traffic import APPLICATION
from recon_pipeline_tests.simulation.model import (
    Added,
    Change,
    Deleted,
    Erased,
    Event,
    Foreign,
    Inserted,
    Model,
)
from recon_pipeline_tests.simulation.pipeline import COMMIT
from recon_pipeline_tests.simulation.plan import NAMED, Op
from recon_pipeline_tests.simulation.scheduler import Actor

SETTLE_SECONDS = 1_800
UTC = "-c timezone=UTC"
"""So that periods come back as they went."""

_KEY = "(gateway_name, usage_type, gateway_customer_id, period_start, period_end) = (%s, %s, %s, %s, %s)"
_COLUMNS = "gateway_name, usage_type, gateway_customer_id, period_start, period_end"
_INSERT_EVENT = f"""
    insert into billing_usage_events ({_COLUMNS}, quantity, request_id) values (%s, %s, %s, %s, %s, %s, %s)
    on conflict do nothing
"""
_NEW_EVENTS = """
    select
        event.id, event.created_at, event.quantity, event.request_id,
        gateway_customer_id, period_start, period_end,
        to_jsonb(event) ? 'ingest_xid' as has_ingest_xid, to_jsonb(event) ->> 'ingest_xid' as ingest_xid,
        pg_current_xact_id()::text::bigint as transaction
    from billing_usage_events as event
    where gateway_name = 'stripe' and request_id = any(%s) and xmin = pg_current_xact_id()::xid and id <> all(%s)
"""
_INSERT_NAMED = f"""
    insert into billing_usage_events ({_COLUMNS}, quantity, request_id, ingest_xid)
    values (%s, %s, %s, %s, %s, %s, %s, ({{named}})::xid8)
"""
_INSERT_COPY = """
    insert into billing_usage_events
    select copied.*
    from billing_usage_events as event,
        jsonb_populate_record(event, jsonb_build_object('id', gen_random_uuid(), 'request_id', %s::text)) as copied
    where event.id = %s
"""
"""What `insert ... select *` does, and a COPY: every column comes along."""

_NAMES = {
    "null": "select null::text",
    "none": "select '0'",
    "old": "select (pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 40)::text",
    "own": "select pg_current_xact_id()::text",
    "soon": "select (pg_current_xact_id()::text::bigint + 30)::text",
    "far": "select (pg_current_xact_id()::text::bigint + 1000000000)::text",
}
_INCREMENT = f"""
    insert into billing_usage_counters as counter ({_COLUMNS}, usage_count) values (%s, %s, %s, %s, %s, %s)
    on conflict ({_COLUMNS}) do update set usage_count = counter.usage_count + excluded.usage_count
"""
_RECORD = "select record_billing_usage_event(%s, %s, %s, %s, %s, %s, %s)"
_AN_HOUR_PASSES = """
    update recon.reconciliation_run as run set started_at = run.started_at - interval '1 hour'
    from (
        select run_id from recon.reconciliation_run where outcome <> 'running' for update skip locked
    ) as free
    where run.run_id = free.run_id;
    update recon.event_log as log set first_seen_at = log.first_seen_at - interval '1 hour'
    from (select is_known from recon.event_log for update skip locked) as free
    where log.is_known
"""
_HAS_HORIZONS = """
    select exists (
        select from pg_attribute where attrelid = 'recon.reconciliation_run'::regclass and attname = 'horizon'
    )
"""
_OLD_HORIZON = """
    select coalesce(max(horizon::text::bigint), 0) from recon.reconciliation_run
    where started_at <= now() - make_interval(secs => %s)
        and started_at > (select first_seen_at from recon.event_log)
"""
COUNT_NOW = "select pg_stat_force_next_flush()"
"""So that Postgres counts a change when it is committed and not some time within a second."""


@dataclass
class Session:
    """A session of the application; every statement of its waits for its turn."""

    actor: Actor
    model: Model
    connection: psycopg.Connection[Any]
    on_their_way: set[str] = field(default_factory=set)
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
        self.connection.execute(COUNT_NOW)
        self.connection.commit()
        self.model.commit(changes)

    def new_events(self, *request_ids: str) -> list[Change]:
        """What this transaction has put into the log for request ids since it was last asked."""
        changes = new_events(self.connection, request_ids, self.seen)
        self.seen += [UUID(change.id) for change in changes if isinstance(change, Inserted)]
        return changes


def new_events(connection: psycopg.Connection[Any], request_ids: Sequence[str], seen: Sequence[UUID]) -> list[Change]:
    """What the transaction of a connection has put into the log for request ids, but for what was seen."""
    changes: list[Change] = []
    for row in connection.execute(_NEW_EVENTS, (list(request_ids), list(seen))).fetchall():
        arrived = (*([int(row.ingest_xid or 0)] if row.has_ingest_xid else []), row.created_at, row.id)
        key = (row.gateway_customer_id, row.period_start, row.period_end)
        changes.append(Inserted(str(row.id), Event(row.request_id, key, row.quantity, arrived, row.transaction)))
        if row.has_ingest_xid and row.ingest_xid != str(row.transaction):
            changes.append(Foreign(key))
    return changes


def application(ops: Sequence[Op], url: str, model: Model, on_their_way: set[str]) -> Callable[[Actor], None]:
    """Records usage, as applications do; gives up what Postgres cancels to break a deadlock among applications."""

    def act(actor: Actor) -> None:
        with connected(url, application_name=APPLICATION, options=UTC) as connection:
            session = Session(actor, model, connection, on_their_way)
            actor.pid = connection.info.backend_pid
            for op in ops:
                actor.stop("begin")
                try:
                    _WRITES[op.kind](session, op)
                except errors.DeadlockDetected:
                    connection.rollback()
                    session.statements = 0
                finally:
                    on_their_way.discard(actor.name)

    return act


def _record(session: Session, op: Op) -> None:
    changes: list[Change] = []
    for number, key in enumerate(op.keys):
        request_id = f"{op.request_id}/{number}" if number else op.request_id
        values = (GATEWAY, key[0], USAGE, request_id, *key[1:], op.quantity)
        ((is_new,),) = session.query("record_billing_usage_event", _RECORD, *values)
        if is_new:
            changes += [*session.new_events(request_id), Added(key, op.quantity)]
    session.end(changes, is_rolled_back=op.is_rolled_back)


def _split(session: Session, op: Op) -> None:
    (key,) = op.keys
    session.query("insert event", _INSERT_EVENT, GATEWAY, USAGE, *key, op.quantity, op.request_id)
    changes = session.new_events(op.request_id)
    if changes and op.quantity != 0:
        session.query("increment", _INCREMENT, GATEWAY, USAGE, *key, op.quantity)
        changes.append(Added(key, op.quantity))
    session.end(changes, is_rolled_back=op.is_rolled_back)


def _two(session: Session, op: Op) -> None:
    (key,) = op.keys
    session.query("insert event", _INSERT_EVENT, GATEWAY, USAGE, *key, op.quantity, op.request_id)
    changes = session.new_events(op.request_id)
    session.end(changes, is_rolled_back=op.is_rolled_back)
    if changes and not op.is_rolled_back:
        session.on_their_way.add(session.actor.name)
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
    session.end(session.new_events(op.request_id), is_rolled_back=op.is_rolled_back)


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
    _change_events(session, op, [event[0]] if event else [], "edit event")


def _mass_edit(session: Session, op: Op) -> None:
    """A price list, a merge of customers: one statement for half of the log."""
    _change_events(session, op, _half(session.model, op), "edit many events")


def _mass_erase(session: Session, op: Op) -> None:
    """Somebody's right to be forgotten, or retention: one statement for half of the log."""
    many = _half(session.model, op)
    delete = "delete from billing_usage_events where id = any(%s) returning id"
    gone = session.query("erase many events", delete, list(map(UUID, many))) if many else []
    session.end([Erased(str(row.id)) for row in gone], is_rolled_back=op.is_rolled_back)


def _change_events(session: Session, op: Op, ids: Sequence[str], name: str) -> None:
    update = """
        update billing_usage_events set quantity = %s where id = any(%s)
        returning id, pg_current_xact_id()::text::bigint as transaction
    """
    changed = session.query(name, update, op.quantity, list(map(UUID, ids))) if ids else []
    changes = [
        Inserted(id, replace(session.model.events[id], quantity=op.quantity, transaction=row.transaction))
        for row in changed
        for id in [str(row.id)]
    ]
    session.end(changes, is_rolled_back=op.is_rolled_back)


def _named(session: Session, op: Op) -> None:
    """An application that fills `ingest_xid` itself, as an ORM does that maps every column."""
    (key,) = op.keys
    insert = _INSERT_NAMED.replace("{named}", _NAMES[NAMED[op.pick % len(NAMED)]])
    session.query("insert event with ingest_xid", insert, GATEWAY, USAGE, *key, op.quantity, op.request_id)
    _increment_named(session, op)


def _copied(session: Session, op: Op) -> None:
    """An event that is another one but for its name, the transaction included."""
    if event := _picked(session.model, op):
        session.query("copy event", _INSERT_COPY, op.request_id, UUID(event[0]))
        _increment_named(session, op)


def _increment_named(session: Session, op: Op) -> None:
    changes = session.new_events(op.request_id)
    events = [change.event for change in changes if isinstance(change, Inserted)]
    for event in events if op.nth else ():
        if event.is_valid:
            session.query("increment", _INCREMENT, GATEWAY, USAGE, *event.key, event.quantity)
            changes.append(Added(event.key, int(event.quantity or 0)))
    session.end(changes, is_rolled_back=op.is_rolled_back)


def _half(model: Model, op: Op) -> list[str]:
    """Every other event that is committed, whatever ids they were given."""
    return [id for number, (id, _) in enumerate(_in_order(model)) if number % 2 == op.pick % 2]


def _in_order(model: Model) -> list[tuple[str, Event]]:
    healthy = [item for item in model.events.items() if item[1].key not in model.poisoned]
    return sorted(healthy, key=lambda item: (item[1].request_id, item[1].arrived))


def _picked(model: Model, op: Op) -> tuple[str, Event] | None:
    """One of the events that are committed, the same one whatever ids and transactions they were given."""
    events = _in_order(model)
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
    "mass edit": _mass_edit,
    "mass erase": _mass_erase,
    "named": _named,
    "copied": _copied,
}


def clock(ops: Sequence[Op], url: str, model: Model) -> Callable[[Actor], None]:
    """Lets an hour pass: every run that has ended began an hour earlier."""

    def act(actor: Actor) -> None:
        with connected(url, application_name=APPLICATION) as connection:
            actor.pid = connection.info.backend_pid
            for _ in ops:
                actor.stop("an hour passes")
                model.grow_older(let_an_hour_pass(connection))

    return act


def let_an_hour_pass(connection: psycopg.Connection[Any]) -> int:
    """Returns the highest horizon that is older than RECON_SETTLE_SECONDS then; 0 without one."""
    connection.execute(_AN_HOUR_PASSES)
    ((knows_horizons,),) = connection.execute(_HAS_HORIZONS).fetchall()
    rows = connection.execute(_OLD_HORIZON, (SETTLE_SECONDS,)).fetchall() if knows_horizons else [(0,)]
    connection.commit()
    return rows[0][0]
