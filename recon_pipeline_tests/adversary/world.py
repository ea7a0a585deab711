"""An application's database, runs of the product in it, and somebody who acts between their statements."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import event

from recon_pipeline.core.guards import Budgets
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.reconciliation.billing import MAY, Billing, Period, connected
from recon_pipeline_tests.reconciliation.conftest import full_template, incremental_template
from recon_pipeline_tests.reconciliation.product import kept_database
from recon_pipeline_tests.simulation import pipeline
from recon_pipeline_tests.simulation.pipeline import Ended, RunOptions
from recon_pipeline_tests.support.postgres import PostgresServer

TICK, AUDIT, BARE_LOG = "tick", "audit", "bare log"
"""How a run reads: what is new; the log itself, beside aggregates; a log that was never prepared."""

MODES = (TICK, AUDIT, BARE_LOG)

PUT_OFF = "put off"
"""What a run says that found somebody in its way and changed nothing."""

COUNT_NOW = "select pg_stat_force_next_flush()"
"""So that what was done is in the server's statistics at once: whoever decides by them is to be caught elsewhere."""

APPROVED = "a test has looked at it"
NONE_LEFT = replace(pipeline.NO_BUDGETS, max_events_left=0)
"""Budgets that let no counter be lowered for what left the log."""
_RECORD = "select record_billing_usage_event('stripe', %s, 'remote_commands', %s, %s, %s, %s, %s)"
_RECORD_EACH = """
    select count(record_billing_usage_event(
        'stripe', customer, 'remote_commands', %s || n, '2025-05-01 00:00Z', '2025-06-01 00:00Z', %s,
        '2025-05-01 00:00Z'
    ))
    from unnest(%s::text[]) with ordinality as given (customer, n)
"""
_WRONG = """
    select gateway_customer_id, period_start, usage_count, used
    from (
        select gateway_name, gateway_customer_id, usage_type, period_start, period_end, sum(quantity) as used
        from billing_usage_events where quantity > 0 group by 1, 2, 3, 4, 5
    ) as event
    full join billing_usage_counters as counter
        using (gateway_name, gateway_customer_id, usage_type, period_start, period_end)
    where coalesce(usage_count, 0) <> coalesce(used, 0)
    order by 1, 2
"""


_SAME_LOG = """
    update recon.event_log set identity = replace(
        identity,
        'database ' || (select oid from pg_database where datname = %s),
        'database ' || (select oid from pg_database where datname = current_database())
    )
"""
"""A copy of a database has a log of its own, which the product would read from the start."""


class Application(Billing):
    """An application whose events happen in the period that they are billed in."""

    _beside: psycopg.Connection[Any] | None = None

    @property
    def beside(self) -> psycopg.Connection[Any]:
        """A second connection, which stays open: one for each of a hundred statements takes longer than they do."""
        if self._beside is None:
            self._beside = connected(self.url)
        return self._beside

    def close(self) -> None:
        """Close the second connection."""
        if self._beside is not None:
            self._beside.close()

    @contextmanager
    def session(self, **options: Any) -> Iterator["Application"]:
        """Another connection, see `Billing.session`."""
        with super().session(**options) as session:
            yield Application(session.url, session.connection, session._numbers)

    def record(self, customer: str, quantity: int = 1, *, period: Period = MAY, request_id: str | None = None) -> bool:
        """Record usage through the application's recorder."""
        request_id = request_id or f"{id(self):x}-{next(self._numbers)}"
        return self.value(_RECORD, customer, request_id, *period, quantity, period[0])

    def record_each(self, customers: Iterable[str], quantity: int) -> None:
        """Record so much in May for each customer, one after the other, in one statement."""
        self.query(_RECORD_EACH, f"{id(self):x}-{next(self._numbers)}-", quantity, list(customers))

    def add_event(self, customer: str | None, quantity: object = 1, *, period: Period = MAY, **columns: object) -> None:
        """Put an event into the log and leave the counter as it is."""
        super().add_event(customer, quantity, period=period, **({"event_timestamp": period[0]} | columns))


@dataclass(frozen=True)
class Settled:
    """What a world holds that was filled and has settled in, see `World.fill` and `World.settle_in`."""

    customers: tuple[str, ...]
    runs: int
    tables: str


class World:
    """A database and the way in which runs read it.

    Attributes:
        mode: One of `MODES`.
    """

    def __init__(self, billing: Application | Callable[[Settled | None], Application], mode: str) -> None:
        """Take the application's side, or what makes it once it is first used."""
        self._billing = billing
        self.mode = mode

    @property
    def billing(self) -> Application:
        """The application's side."""
        if not isinstance(self._billing, Application):
            self._billing = self._billing(None)
        return self._billing

    def begin_settled(self, customers: Sequence[str], *, runs: int = 2, tables: str = "") -> None:
        """Be what `fill` and `settle_in` make of a fresh world: a copy of one in which they have run.

        Args:
            customers: As `fill` takes them.
            runs: As `settle_in` takes it; 0: the product has not seen it.
            tables: SQL that alters the tables first.
        """
        assert not isinstance(self._billing, Application), "this world has begun already"
        self._billing = self._billing(Settled(tuple(customers), runs, tables))

    def run(
        self,
        *,
        between: Callable[[int], object] | None = None,
        before_commit: Callable[[int], object] | None = None,
        settle_seconds: int = 0,
        budgets: Budgets = pipeline.NO_BUDGETS,
        refuses_negative: bool = True,
        approve: str = "",
        is_dry: bool = False,
        months: tuple[str, str] = (RunOptions.first, RunOptions.last),
        url: str | None = None,
        database: BillingDatabase | None = None,
    ) -> Ended:
        """One run of the product, over all months unless it is said otherwise.

        Args:
            between: Called before every statement of the run with its number, from 1.
            before_commit: Called before every commit of the run with its number, from 1.
            settle_seconds: As the environment would say.
            budgets: As the environment would say.
            refuses_negative: As the environment would say.
            approve: Lets it repair beyond the budgets.
            is_dry: Compare only.
            months: The first and the last.
            url: Another way to the same database.
            database: To run in, if it is not to be closed at the end.
        """
        self.billing.query(COUNT_NOW)
        is_watched = between is not None or before_commit is not None
        if database is None:
            named = url or self.billing.url
            database = BillingDatabase(named, keeps_connection=True) if is_watched else kept_database(named)
        if between is not None:
            between_statements(database, between)
        if before_commit is not None:
            before_commits(database, before_commit)
        asked = RunOptions(
            *months,
            full=self.mode == AUDIT,
            approve_reason=approve,
            is_dry=is_dry,
            settle_seconds=settle_seconds,
            budgets=budgets,
            refuses_negative=refuses_negative,
        )
        try:
            return pipeline.run(database, asked)
        finally:
            if is_watched:
                database.close()

    def fill(self, customers: Sequence[str], *, used: int = 12, events: int = 3) -> None:
        """Let customers use so much in May, in so many events, through the recorder: every counter is right."""
        record_many(self.billing, customers, [used // events + (used % events if not n else 0) for n in range(events)])

    def settle_in(self, *, runs: int = 2) -> None:
        """Let the product see this database while all is right, as often as it needs to have verified it."""
        for _ in range(runs):
            ended = self.run(approve=APPROVED)
            assert (ended.outcome, ended.mismatch_count) == ("clean", 0), ended

    def wrong(self) -> list[Any]:
        """Keys whose counter is not what the log's own rows add up to."""
        return self.billing.query(_WRONG)

    def repaired(self) -> list[tuple[Any, ...]]:
        """Customers in the ledger, with what was and what became of their counters."""
        return self.billing.ledger("gateway_customer_id, usage_count_before, usage_count_after")


def make_world(server: PostgresServer, billing: Callable[[str], Application], mode: str) -> World:
    """A fresh world without customers, or one that begins settled."""
    bare = full_template(server) if mode == BARE_LOG else incremental_template(server)

    def make(settled: Settled | None) -> Application:
        if settled is None:
            return billing(server.create_database(bare))
        fill = partial(_settle, mode=mode, settled=settled)
        template = server.template(f"adversary {mode} {settled}", fill, on=bare)
        application = billing(server.create_database(template))
        application.query(_SAME_LOG, template)
        return application

    return World(make, mode)


def _settle(url: str, *, mode: str, settled: Settled) -> None:
    with connected(url, autocommit=True) as connection:
        connection.execute(settled.tables.encode())
        world = World(Application(url, connection), mode)
        world.fill(settled.customers)
        world.settle_in(runs=settled.runs)
    kept_database(url).close()


def between_statements(database: BillingDatabase, act: Callable[[int], object]) -> None:
    """Call `act(n)` before the n-th statement of everything that is done through this database, from 1."""
    seen = 0

    def before(*_: object) -> None:
        nonlocal seen
        seen += 1
        act(seen)

    event.listen(database.engine, "before_cursor_execute", before)


def before_commits(database: BillingDatabase, act: Callable[[int], object]) -> None:
    """The same before each commit."""
    seen = 0

    def before(*_: object) -> None:
        nonlocal seen
        seen += 1
        act(seen)

    event.listen(database.engine, "commit", before)


def at(number: int, act: Callable[[], object]) -> Callable[[int], None]:
    """Acts once, before the statement of this number."""

    def maybe(n: int) -> None:
        if n == number:
            act()

    return maybe


def statement_count(world: World) -> int:
    """How many statements a run of this world has that finds nothing to do."""
    seen = [0]
    world.run(between=lambda n: seen.append(n))
    return seen[-1]


def record_many(billing: Application, customers: Sequence[str], quantities: Sequence[int]) -> None:
    """Record each quantity for each customer in May, in one transaction."""
    with billing.session() as session:
        for quantity in quantities:
            session.record_each(customers, quantity)


def fill_by_sql(billing: Billing, keys: int, *, events: int = 1, prefix: str = "customer_") -> None:
    """So many customers with so many events of 1 in May each, and right counters, by two statements."""
    billing.query(
        """
        insert into billing_usage_events
            (gateway_name, gateway_customer_id, usage_type, request_id, quantity, period_start, period_end,
            event_timestamp)
        select 'stripe', %s || lpad(key::text, 7, '0'), 'remote_commands', gen_random_uuid()::text, 1,
            '2025-05-01 00:00Z', '2025-06-01 00:00Z', '2025-05-02 00:00Z'
        from generate_series(1, %s) as key, generate_series(1, %s)
        """,
        prefix, keys, events,
    )  # fmt: skip
    count_right(billing)
    billing.query("analyze")


def count_right(billing: Billing) -> None:
    """Give every key of the log that has no counter the right one."""
    billing.query(
        """
        insert into billing_usage_counters
            (gateway_name, gateway_customer_id, usage_type, period_start, period_end, usage_count)
        select gateway_name, gateway_customer_id, usage_type, period_start, period_end, sum(quantity)
        from billing_usage_events group by 1, 2, 3, 4, 5
        on conflict do nothing
        """
    )


def impatient(billing: Application, statements: str, *, lock_timeout_ms: int = 20) -> bool:
    """Run statements in one transaction of another session; returns whether their locks were had in time."""
    session = billing.beside
    with suppress(psycopg.errors.LockNotAvailable), session.transaction():
        session.execute(sql.SQL("set local lock_timeout = {}").format(lock_timeout_ms))
        session.execute(statements.encode())
        return True
    return False


@contextmanager
def holding(billing: Application, statements: str) -> Iterator[Application]:
    """Another session, in a transaction in which these statements have run; what it did not commit is rolled back."""
    with billing.session() as session:
        session.connection.execute(statements.encode())
        yield session
        session.connection.rollback()
