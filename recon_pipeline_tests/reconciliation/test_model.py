"""Comparison and repair against a model in pure Python, on logs and counters that Hypothesis makes up."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recon_pipeline.core.quotas import Quota
from recon_pipeline_tests.reconciliation.billing import GATEWAY, JUNE, MAY, USAGE, Billing, Period
from recon_pipeline_tests.reconciliation.conftest import MakeBilling
from recon_pipeline_tests.reconciliation.product import Run, new_run

Key = tuple[str, Period]
CUSTOMERS, PERIODS = ("a", "b", "c"), (MAY, JUNE)
FREE, PAID = 5, 9
SHAPE = """
    alter table billing_usage_events drop constraint billing_usage_events_gateway_name_request_id_key;
    alter table billing_usage_events drop constraint billing_usage_events_quantity_check;
    alter table billing_usage_events drop constraint billing_usage_events_check;
    alter table billing_usage_events alter quantity drop not null;
    alter table recon.counter_repair disable trigger user;
"""
EMPTY = """
    truncate billing_usage_events, billing_usage_counters, billing_subscriptions,
        recon.counter_repair, recon.counter_drift
"""
EPOCH = datetime(2025, 5, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Event:
    """One row of the log; `arrived` orders rows, and equal ones are ordered by their place."""

    customer: str
    period: Period
    quantity: int | None
    request_id: str
    arrived: int
    is_reversed: bool

    @property
    def is_valid(self) -> bool:
        """Whether the event may be summed."""
        return self.quantity is not None and self.quantity > 0 and not self.is_reversed


keys = st.tuples(st.sampled_from(CUSTOMERS), st.sampled_from(PERIODS))
logs = st.lists(
    st.builds(
        Event,
        customer=st.sampled_from(CUSTOMERS),
        period=st.sampled_from(PERIODS),
        quantity=st.one_of(st.none(), st.integers(-1, 7)),
        request_id=st.sampled_from("rstuvwxyz"),
        arrived=st.integers(0, 30),
        is_reversed=st.booleans().filter(lambda chosen: not chosen) | st.booleans(),
    ),
    max_size=14,
    unique_by=lambda event: event.arrived,
)
counters = st.dictionaries(keys, st.integers(0, 15), max_size=6)
subscriptions = st.sets(keys, max_size=3)


def model_sums(log: list[Event]) -> dict[Key, int]:
    """The event sum of each key that has one: the first valid event of each request id counts."""
    sums: dict[Key, int] = {}
    seen: set[str] = set()
    for event in sorted(filter(lambda event: event.is_valid, log), key=lambda event: event.arrived):
        if event.request_id not in seen:
            seen.add(event.request_id)
            key = (event.customer, event.period)
            sums[key] = sums.get(key, 0) + (event.quantity or 0)
    return sums


def model_kind(counted: int | None, used: int | None) -> str | None:
    """The kind of drift of one key."""
    if (counted or 0) == (used or 0):
        return None
    if counted is None:
        return "missing"
    if used is None:
        return "orphan"
    return "under" if counted < used else "over"


def model_limit(key: Key, subscribed: set[Key]) -> int | None:
    """How much the customer may use in the period; None where it ended before that of a subscription began."""
    customer, period = key
    if key in subscribed:
        return PAID
    return None if any(who == customer and current[0] >= period[1] for who, current in subscribed) else FREE


def model_ledger(
    sums: Mapping[Key, int], counted: Mapping[Key, int], subscribed: set[Key]
) -> dict[Key, tuple[Any, ...]]:
    """What the ledger must say of each drifted key: kind, before, after, limit, and the two transitions."""
    rows: dict[Key, tuple[Any, ...]] = {}
    for key in sums.keys() | counted.keys():
        kind = model_kind(counted.get(key), sums.get(key))
        if kind:
            before, after = counted.get(key), sums.get(key, 0)
            limit = model_limit(key, subscribed)
            if limit is None:
                rows[key] = (kind, before, after, None, None, None)
                continue
            over, under = (before or 0) < limit <= after, after < limit <= (before or 0)
            rows[key] = (kind, before, after, limit, over, under)
    return rows


def write(billing: Billing, log: list[Event], counted: Mapping[Key, int], subscribed: set[Key]) -> None:
    # In one transaction: then created_at says in both modes which event arrived first.
    with billing.connection.transaction():
        billing.connection.execute(EMPTY)
        for event in log:
            period = (event.period[1], event.period[0]) if event.is_reversed else event.period
            billing.add_event(
                event.customer,
                event.quantity,
                period=period,
                request_id=event.request_id,
                created_at=EPOCH + timedelta(seconds=event.arrived),
            )
        for (customer, period), value in counted.items():
            billing.add_counter(customer, value, period=period)
        for customer, period in subscribed:
            billing.subscribe(customer, period=period)


def read(billing: Billing, columns: str, table: str, *more: object) -> dict[Key, tuple[Any, ...]]:
    found = billing.query(
        f"select gateway_customer_id, period_start, period_end, {columns} from {table}",
        *more,
    )
    return {(row[0], (row[1].astimezone(UTC), row[2].astimezone(UTC))): tuple(row[3:]) for row in found}


def run_over_both_months(billing: Billing) -> Run:
    return new_run(billing.url, last="2025-07", quotas={USAGE: Quota(free=FREE, paid=PAID)})


def test_comparison_and_repair_do_what_the_model_says(make_billing: MakeBilling) -> None:
    billing = make_billing(SHAPE)

    @settings(max_examples=40, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(log=logs, counted=counters, subscribed=subscriptions)
    def agree(log: list[Event], counted: dict[Key, int], subscribed: set[Key]) -> None:
        write(billing, log, counted, subscribed)
        sums = model_sums(log)
        expected = model_ledger(sums, counted, subscribed)
        run = run_over_both_months(billing)

        summary = run.compare().summary
        found = read(
            billing,
            "kind, usage_count, settled_sum::bigint, usage_limit, over_quota_transition, under_quota_transition",
            "recon.counter_drift where run_id = %s",
            run.question.run_id,
        )
        assert found == expected
        assert summary.drift_count == run.verify().mismatch_count == len(expected)
        assert summary.counters_scanned == len(counted)
        assert summary.over_quota_transitions == sum(bool(row[4]) for row in expected.values())
        assert summary.under_quota_transitions == sum(bool(row[5]) for row in expected.values())
        assert summary.usage_missed == sum(max(row[2] - (row[1] or 0), 0) for row in expected.values())
        assert summary.usage_excess == sum(max((row[1] or 0) - row[2], 0) for row in expected.values())

        outcome = run.repair()

        assert outcome.repaired == len(expected)
        assert outcome.failed == outcome.deferred == outcome.untouched == outcome.in_sync == 0
        columns = (
            "kind, usage_count_before, usage_count_after, usage_limit, over_quota_transition, under_quota_transition"
        )
        assert read(billing, columns, "recon.counter_repair") == expected
        after = read(billing, "usage_count", f"billing_usage_counters where gateway_name = '{GATEWAY}'")
        assert after == {key: (sums.get(key, 0),) for key in sums.keys() | counted.keys()}
        assert run.verify().mismatch_count == 0

    agree()
