"""Migrations of the application's tables while the product runs: each changes nothing that the model knows.

Every one of them is a transaction of several statements, so that others wait for it, and it for them. Switching row
level security on and off again are two transactions: what comes between them sees it switched on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recon_pipeline_tests.reconciliation.billing import connected
from recon_pipeline_tests.reconciliation.traffic import APPLICATION
from recon_pipeline_tests.simulation.actors import UTC, Session
from recon_pipeline_tests.simulation.model import Model, Rewritten
from recon_pipeline_tests.simulation.plan import Op
from recon_pipeline_tests.simulation.scheduler import Actor

PARTITIONS = {
    "log_2024": ("2024-01-01 00:00Z", "2025-01-01 00:00Z"),
    "log_2025_early": ("2025-01-01 00:00Z", "2025-05-01 00:00Z"),
    "log_2025_05": ("2025-05-01 00:00Z", "2025-06-01 00:00Z"),
    "log_2025_late": ("2025-06-01 00:00Z", "2026-01-01 00:00Z"),
}
_LOG, _COUNTERS = "billing_usage_events", "billing_usage_counters"
_TRANSACTION = "select pg_current_xact_id()::text::bigint"


@dataclass
class Migrations:
    """What goes on, for those who check a run.

    Attributes:
        begun: How many migrations have begun.
        is_active: One holds locks, or waits for some.
        hides_rows: Row level security is on.
    """

    begun: int = 0
    is_active: bool = False
    hides_rows: bool = False


def migrator(ops: Sequence[Op], url: str, model: Model, going_on: Migrations) -> Callable[[Actor], None]:
    """Runs one migration after the other."""

    def act(actor: Actor) -> None:
        with connected(url, application_name=APPLICATION, options=UTC) as connection:
            session = Session(actor, model, connection)
            actor.pid = connection.info.backend_pid
            for op in ops:
                actor.stop("begin")
                going_on.begun += 1
                going_on.is_active = True
                _MIGRATIONS[op.kind](session, op, going_on)
                going_on.is_active = False

    return act


def _retype_quantity(session: Session, op: Op, _: Migrations) -> None:
    """A rewrite, to bigint and, some other time, back."""
    kind = ("bigint", "integer")[op.pick % 2]
    _rewrite(
        session,
        op,
        f"alter table {_LOG} alter column quantity type {kind}",
        f"comment on column {_LOG}.quantity is 'now {kind}'",
    )


def _add_column_to_log(session: Session, op: Op, _: Migrations) -> None:
    added = f"alter table {_LOG} add column device uuid default gen_random_uuid()"
    _rewrite(session, op, added, f"alter table {_LOG} drop column device")


def _reload_log(session: Session, op: Op, _: Migrations) -> None:
    """As a dump that is loaded again: the same rows, written anew."""
    _rewrite(
        session,
        op,
        f"lock table {_LOG} in access exclusive mode",
        f"create temporary table kept on commit drop as select * from {_LOG}",
        f"truncate {_LOG}",
        f"insert into {_LOG} select * from kept",
    )


def _add_column_to_counters(session: Session, op: Op, _: Migrations) -> None:
    session.query("migrate", f"alter table {_COUNTERS} add column device uuid default gen_random_uuid()")
    session.query("migrate", f"alter table {_COUNTERS} drop column device")
    session.end([], is_rolled_back=op.is_rolled_back)


def _partition(session: Session, op: Op, _: Migrations) -> None:
    name, (first, end) = list(PARTITIONS.items())[2 - op.pick % 2]
    session.query("migrate", f"alter table {_LOG} detach partition {name}")
    session.query("migrate", f"comment on table {name} is 'on its own'")
    session.query("migrate", f"alter table {_LOG} attach partition {name} for values from ('{first}') to ('{end}')")
    session.end([], is_rolled_back=op.is_rolled_back)


def _row_security(session: Session, _: Op, going_on: Migrations) -> None:
    """Somebody follows an advisor's advice, and takes it back."""
    session.query("migrate", f"alter table {_LOG} enable row level security")
    session.end([], is_rolled_back=False)
    going_on.hides_rows = True
    session.query("migrate", f"alter table {_LOG} disable row level security")
    session.end([], is_rolled_back=False)
    going_on.hides_rows = False


def _rewrite(session: Session, op: Op, *statements: str) -> None:
    for statement in statements:
        session.query("migrate", statement)
    ((transaction,),) = session.connection.execute(_TRANSACTION).fetchall()
    session.end([Rewritten(transaction)], is_rolled_back=op.is_rolled_back)


_MIGRATIONS: dict[str, Callable[[Session, Op, Migrations], None]] = {
    "retype quantity": _retype_quantity,
    "add column to log": _add_column_to_log,
    "reload log": _reload_log,
    "add column to counters": _add_column_to_counters,
    "partition": _partition,
    "row security": _row_security,
}
