"""The incremental mode against a model in plain Python, on whatever an application may do between two ticks.

After every tick each counter, each sum that a comparison would read and every total is what the model says.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from recon_pipeline.core.periods import contiguous_ranges
from recon_pipeline.store.log import decision
from recon_pipeline.store.records.schedule import months_to_reconcile
from recon_pipeline.store.sums import aggregates, modes
from recon_pipeline.store.sums.aggregates import Audit
from recon_pipeline.store.sums.modes import Mode, ModeChoice
from recon_pipeline_tests.reconciliation.billing import GATEWAY, JUNE, MAY, USAGE, Billing, Period, in_month
from recon_pipeline_tests.reconciliation.conftest import MakeBilling
from recon_pipeline_tests.reconciliation.increments import compared, event_sums_by_key, tick, wrong_totals
from recon_pipeline_tests.reconciliation.product import new_run

Key = tuple[str, Period]
NOVEMBER: Period = (datetime(2024, 11, 1, tzinfo=UTC), datetime(2024, 12, 1, tzinfo=UTC))
EPOCH = datetime(2025, 5, 2, tzinfo=UTC)
EXTENT: dict[str, Any] = {"first": "2024-11", "last": "2025-06", "refuses_negative": False}
SHAPE = """
    alter table billing_usage_events drop constraint billing_usage_events_gateway_name_request_id_key;
    alter table billing_usage_events drop constraint billing_usage_events_quantity_check;
    alter table billing_usage_events drop constraint billing_usage_events_check;
    alter table billing_usage_events alter quantity drop not null;
    alter table billing_usage_counters drop constraint billing_usage_counters_usage_count_check;
    alter table recon.counter_repair disable trigger user;
    create index on billing_usage_events (request_id);
"""
EMPTY = """
    truncate billing_usage_events, billing_usage_counters, recon.counter_repair, recon.counter_drift;
    truncate recon.usage_aggregate, recon.usage_month, recon.open_key, recon.invalidated_key, recon.event_log,
        recon.reconciliation_run
"""
INSERT = """
    insert into billing_usage_events (
        gateway_name, gateway_customer_id, usage_type, request_id, quantity, period_start, period_end, created_at
    ) values (%s, %s, %s, %s, %s, %s, %s, %s)
    returning id, ingest_xid::text
"""
SET_COUNTER = """
    insert into billing_usage_counters (
        gateway_name, gateway_customer_id, usage_type, period_start, period_end, usage_count
    ) values (%s, %s, %s, %s, %s, %s)
    on conflict (gateway_name, gateway_customer_id, usage_type, period_start, period_end)
    do update set usage_count = excluded.usage_count
"""
MOVE_COUNTERS = """
    update billing_usage_counters as counter set gateway_customer_id = %s
    where gateway_customer_id = %s
        and period_start = %s
        and not exists (
            select from billing_usage_counters as other
            where other.gateway_customer_id = %s
                and (other.period_start, other.period_end) = (counter.period_start, counter.period_end)
        )
"""
STALE = "select coalesce(sum(aggregates_differing), 0) from recon.reconciliation_run"


@dataclass(frozen=True)
class Event:
    """One row of the log."""

    customer: str
    period: Period
    request_id: str
    quantity: int | None
    created_at: datetime
    transaction: int = 0
    id: UUID | None = None

    @property
    def is_valid(self) -> bool:
        """Whether the event may be summed."""
        return self.quantity is not None and self.period[0] < self.period[1]


WAITING = """
    select gateway_customer_id, period_start, period_end
    from recon.counter_drift
    where outcome = 'doubtful' and error like 'its events changed lately%%' and id > %s
"""
MOVED = """
    select gateway_customer_id, period_start, period_end, coalesce(usage_count, 0) - visible_sum as excess
    from recon.counter_drift
    where outcome = 'doubtful' and 'under two customers' = any(doubts) and id > %s
"""
Log = dict[UUID | None, Event]
Changes = dict[UUID | None, Event | None]


@dataclass
class Transaction:
    """What an open transaction of the application has done so far; None for a row that it has deleted."""

    changes: Changes = field(default_factory=dict)
    savepoints: list[Changes] = field(default_factory=list)
    touched: set[UUID | None] = field(default_factory=set)


customers = st.sampled_from("ab")
periods = st.sampled_from([MAY, JUNE, in_month(JUNE, 10), NOVEMBER, (MAY[0], MAY[0])])
events = st.builds(
    Event,
    customer=customers,
    period=periods,
    request_id=st.sampled_from("rstuvwxyz"),
    quantity=st.integers(1, 7) | st.sampled_from([None, 0, -2]),
    created_at=st.integers(0, 3).map(lambda seconds: EPOCH + timedelta(seconds=seconds)),
)
sessions = st.integers(0, 1)
picks = st.integers(0, 60)


def sums_of(log: Log) -> dict[Key, int]:
    """The event sum of each key that has one: the first valid event of each request id counts."""
    sums: dict[Key, int] = {}
    seen: set[str] = set()
    valid = filter(lambda event: event.is_valid, log.values())
    for event in sorted(valid, key=lambda event: (event.transaction, event.created_at, event.id or UUID(int=0))):
        if event.request_id not in seen:
            seen.add(event.request_id)
            key = (event.customer, event.period)
            sums[key] = sums.get(key, 0) + (event.quantity or 0)
    return sums


def doubtful_keys(log: Log) -> set[Key]:
    """The keys with an event whose request id one of another key, or of another sign, has: nothing is decided."""
    events_of: dict[str, list[Event]] = {}
    for event in filter(lambda event: event.is_valid, log.values()):
        events_of.setdefault(event.request_id, []).append(event)
    keys_of = [{(event.customer, event.period) for event in events} for events in events_of.values()]
    quantities_of = [[event.quantity or 0 for event in events] for events in events_of.values()]
    return {
        key
        for keys, quantities in zip(keys_of, quantities_of, strict=True)
        if len(keys) > 1 or len({(quantity > 0) - (quantity < 0) for quantity in quantities}) > 1
        for key in keys
    }


class Application(RuleBasedStateMachine):
    """An application that does what it likes, and the product that ticks now and then."""

    def __init__(self, billing: Billing, open_session: Callable[[], Billing]) -> None:
        super().__init__()
        self.billing, self.open_session = billing, open_session
        self.billing.connection.execute(EMPTY)
        self.log: Log = {}
        self.last_drift = 0
        self.sessions = [open_session(), open_session()]
        self.transactions: dict[int, Transaction] = {}

    def teardown(self) -> None:
        """End what is still open."""
        for session in self.sessions:
            session.connection.close()

    @rule(event=events)
    def insert(self, event: Event) -> None:
        self._note({}, self._inserted(self.billing, event))

    @rule(event=events, session=sessions)
    def insert_in_a_transaction(self, event: Event, session: int) -> None:
        transaction = self.transactions.setdefault(session, Transaction())
        new = self._inserted(self.sessions[session], event)
        transaction.changes[new.id] = new
        transaction.touched.add(new.id)

    @precondition(lambda self: self.transactions)
    @rule(session=sessions)
    def savepoint(self, session: int) -> None:
        if session in self.transactions:
            transaction = self.transactions[session]
            self.sessions[session].query(f"savepoint s{len(transaction.savepoints)}")
            transaction.savepoints.append(dict(transaction.changes))

    @precondition(lambda self: any(transaction.savepoints for transaction in self.transactions.values()))
    @rule(session=sessions)
    def roll_back_to_savepoint(self, session: int) -> None:
        if session in self.transactions and self.transactions[session].savepoints:
            transaction = self.transactions[session]
            transaction.changes = transaction.savepoints.pop()
            self.sessions[session].query(f"rollback to s{len(transaction.savepoints)}")

    @precondition(lambda self: self.transactions)
    @rule(session=sessions, is_kept=st.booleans() | st.just(True))
    def end(self, session: int, is_kept: bool) -> None:
        if session in self.transactions:
            transaction = self.transactions.pop(session)
            if is_kept:
                self.sessions[session].connection.commit()
                self._note(transaction.changes)
            else:
                self.sessions[session].connection.rollback()

    @precondition(lambda self: self.log)
    @rule(pick=picks)
    def delete(self, pick: int) -> None:
        event = self._picked(pick)
        if event is not None:
            self.billing.query("delete from billing_usage_events where id = %s", event.id)
            self._note({event.id: None})

    @precondition(lambda self: self.log)
    @rule(pick=picks, session=sessions)
    def delete_in_a_transaction(self, pick: int, session: int) -> None:
        event = self._picked(pick)
        if event is not None:
            transaction = self.transactions.setdefault(session, Transaction())
            self.sessions[session].query("delete from billing_usage_events where id = %s", event.id)
            transaction.changes[event.id] = None
            transaction.touched.add(event.id)

    @precondition(lambda self: self.log)
    @rule(pick=picks, new=events, columns=st.sets(st.sampled_from(["customer", "period", "request_id", "quantity"])))
    def update(self, pick: int, new: Event, columns: set[str]) -> None:
        event = self._picked(pick)
        if event is not None:
            changed = replace(event, **{column: getattr(new, column) for column in columns})
            self.billing.query(
                "update billing_usage_events set gateway_customer_id = %s, period_start = %s, period_end = %s, "
                "request_id = %s, quantity = %s where id = %s",
                changed.customer, *changed.period, changed.request_id, changed.quantity, event.id,
            )  # fmt: skip
            self._note({event.id: changed})

    @precondition(lambda self: self.log and not self.transactions)
    @rule(is_truncated=st.booleans())
    def empty_the_log(self, is_truncated: bool) -> None:
        self.billing.query("truncate billing_usage_events" if is_truncated else "delete from billing_usage_events")
        self.log.clear()

    @rule(customer=customers, period=st.sampled_from([JUNE, in_month(JUNE, 10)]), counted=st.integers(0, 9))
    def set_a_counter(self, customer: str, period: Period, counted: int) -> None:
        self.billing.query(SET_COUNTER, GATEWAY, customer, USAGE, *period, counted)

    @rule(customer=customers)
    def delete_counters(self, customer: str) -> None:
        self.billing.query(
            "delete from billing_usage_counters where gateway_customer_id = %s and period_start = %s", customer, JUNE[0]
        )

    @rule(customer=customers, to=st.sampled_from("abz"))
    def move_counters(self, customer: str, to: str) -> None:
        self.billing.query(MOVE_COUNTERS, to, customer, JUNE[0], to)

    @rule()
    def restart(self) -> None:
        for session in self.sessions:
            session.connection.close()
        self.sessions = [self.open_session(), self.open_session()]
        self.transactions.clear()

    @rule()
    def tick(self) -> None:
        everything = new_run(self.billing.url, **EXTENT).question.extent
        with new_run(self.billing.url).decision() as (connection, tables):
            months = months_to_reconcile(connection, everything, tables, recent_days=35, mode=Mode.INCREMENTAL)
        for first, last in contiguous_ranges((*months, everything.last)):
            tick(self.billing.url, **EXTENT | {"first": first.key, "last": last.key})
        self.is_exact()

    @rule()
    def tick_over_everything(self) -> None:
        tick(self.billing.url, **EXTENT)
        self.is_exact()

    @rule()
    def audit(self) -> None:
        run = new_run(self.billing.url, **EXTENT)
        run.aggregate()
        with run.decision() as (connection, tables):
            assert aggregates.audit(connection, run.question, tables) == Audit(0, (), ())

    def is_exact(self) -> None:
        """The promise, asked in every way there is."""
        sums = sums_of(self.log)
        counted = self.billing.query(
            "select gateway_customer_id, period_start, period_end, usage_count from billing_usage_counters"
        )
        # A key whose events changed is left to the next run, while a transaction is open that is older than the change.
        waiting = self.billing.query(WAITING, self.last_drift)
        # A counter may have been moved to another customer, if it has as much too much as the other's lacks.
        moved = {_key(row): row.excess for row in self.billing.query(MOVED, self.last_drift)}
        assert {(key[1], excess) for key, excess in moved.items()} == {
            (key[1], -excess) for key, excess in moved.items()
        }
        self.last_drift = self.billing.value("select coalesce(max(id), 0) from recon.counter_drift")
        doubtful = doubtful_keys(self.log) | {_key(row) for row in waiting} | set(moved)
        decided = {key: total for key, total in sums.items() if key not in doubtful and total != 0}
        found = {_key(row): row.usage_count for row in counted if row.usage_count != 0}
        assert {key: count for key, count in found.items() if key not in doubtful} == decided
        drifted = compared(self.billing.url, mode=Mode.FULL, **EXTENT)[1]
        assert {row[:2] for row in drifted} <= {
            (customer, f"{period[0]:%Y-%m-%d %H:%M:%S}+00") for customer, period in doubtful
        }
        stored = event_sums_by_key(new_run(self.billing.url, **EXTENT))
        assert {_key(row): total for row, total in stored.items()} == sums
        assert wrong_totals(self.billing) == []
        assert self.billing.value(STALE) == 0

    def _inserted(self, session: Billing, event: Event) -> Event:
        ((number, transaction),) = session.query(
            INSERT, GATEWAY, event.customer, USAGE, event.request_id, event.quantity, *event.period, event.created_at
        )
        return replace(event, id=number, transaction=int(transaction))

    def _picked(self, pick: int) -> Event | None:
        """One of the rows that no open transaction has touched, so that nobody waits for anybody."""
        busy = {row for transaction in self.transactions.values() for row in transaction.touched}
        free = [event for event in self.log.values() if event.id not in busy]
        return free[pick % len(free)] if free else None

    def _note(self, changes: Changes, *inserted: Event) -> None:
        for number, event in [*changes.items(), *((event.id, event) for event in inserted)]:
            if event is None:
                self.log.pop(number, None)
            else:
                self.log[number] = event


def _key(row: Any) -> Key:
    return row[0], (row[1].astimezone(UTC), row[2].astimezone(UTC))


@pytest.mark.timeout(900)  # a failure is made as small as it can be, which takes up to five minutes
def test_whatever_an_application_does_every_tick_ends_with_the_sums_of_the_model(
    make_incremental_billing: MakeBilling,
) -> None:
    billing = make_incremental_billing(SHAPE)
    with ExitStack() as opened:

        def open_session() -> Billing:
            return opened.enter_context(billing.session(options="-c lock_timeout=2000"))

        class ApplicationOnThisDatabase(Application):
            def __init__(self) -> None:
                super().__init__(billing, open_session)

        tables = new_run(billing.url).tables()
        # The tables keep their shape, and to look at it takes as long as all the rest of a tick.
        opened.enter_context(patch.object(decision, "require_trustworthy", return_value=tables))
        opened.enter_context(patch.object(modes, "choose", return_value=ModeChoice(Mode.INCREMENTAL)))
        run_state_machine_as_test(
            ApplicationOnThisDatabase,
            settings=settings(
                max_examples=12,
                stateful_step_count=25,
                deadline=None,
                database=None,
                print_blob=True,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
