"""Rows that no arithmetic can hold, each at a key of its own: all others are to be reconciled as if it were not there.

Some are no rows that the application's own tables admit: constraints are lacking in worlds where this acts.
"""

import random
from collections.abc import Callable, Sequence

from recon_pipeline_tests.reconciliation.billing import GATEWAY, USAGE, connected
from recon_pipeline_tests.reconciliation.traffic import APPLICATION
from recon_pipeline_tests.simulation.actors import UTC, Session
from recon_pipeline_tests.simulation.model import Change, Key, Model, Poisoned
from recon_pipeline_tests.simulation.plan import Op
from recon_pipeline_tests.simulation.scheduler import Actor

LONG = "".join(random.Random(0).choices("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_", k=2_660))  # noqa: S311
"""A customer id that the log's index holds, and an index of more columns does not."""

_INSERT = """
    insert into {table} (gateway_name, usage_type, gateway_customer_id, period_start, period_end, {columns})
    values (%s, %s, %s, %s, %s, {values})
"""


def poisoner(ops: Sequence[Op], url: str, model: Model) -> Callable[[Actor], None]:
    """Writes one poisoned row after the other."""

    def act(actor: Actor) -> None:
        with connected(url, application_name=APPLICATION, options=UTC) as connection:
            session = Session(actor, model, connection)
            actor.pid = connection.info.backend_pid
            for op in ops:
                actor.stop("begin")
                _write(session, op)

    return act


def _write(session: Session, op: Op) -> None:
    ((_, start, end),) = op.keys
    name, number = f"poison-{op.pick}", op.request_id
    match op.kind:
        case "no period end":
            _event(session, (name, start, None), number, "3")
        case "no customer":
            _event(session, (None, start, end), number, "3")
        case "long customer":
            _event(session, (LONG, start, end), number, "3")
        case "past bigint":
            _event(session, (name, start, end), number, "9e18")
            _event(session, (name, start, end), f"{number}/1", "9e18")
        case "past numeric":
            _event(session, (name, start, end), number, "9e131071")
            _event(session, (name, start, end), f"{number}/1", "9e131071")
        case "counter without count":
            _event(session, (name, start, end), number, "3")
            _counter(session, (name, start, end), None)
        case _:
            _counter(session, (None, start, end), 3)


def _event(session: Session, key: tuple[object, ...], request_id: str, quantity: str) -> None:
    insert = _INSERT.format(table="billing_usage_events", columns="request_id, quantity", values=f"%s, {quantity}")
    session.query("poison the log", insert, GATEWAY, USAGE, *key, request_id)
    _end(session, key, session.new_events(request_id))


def _counter(session: Session, key: tuple[object, ...], usage_count: int | None) -> None:
    insert = _INSERT.format(table="billing_usage_counters", columns="usage_count", values="%s")
    session.query("poison a counter", insert, GATEWAY, USAGE, *key, usage_count)
    _end(session, key, [])


def _end(session: Session, key: tuple[object, ...], changes: Sequence[Change]) -> None:
    poisoned: Key = key  # pyright: ignore[reportAssignmentType] - that it is none is the poison
    session.end([Poisoned(poisoned), *changes], is_rolled_back=False)
