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
    alter table billing_usage_counters drop constraint billing_usage_counters_usage_count_check;
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
        return self.quantity is not None and not self.is_reversed


keys = st.tuples(st.sampled_from(CUSTOMERS), st.sampled_from(PERIODS))
logs = st.lists(
    st.builds(
        Event,
        customer=st.sampled_from(CUSTOMERS),
        period=st.sampled_from(PERIODS),
        quantity=st.one_of(st.none(), st.integers(-4, 7)),
        request_id=st.sampled_from("rstuvwxyz"),
        arrived=st.integers(0, 30),
        is_reversed=st.booleans().filter(lambda chosen: not chosen) | st.booleans(),
    ),
    max_size=14,
    unique_by=lambda event: event.arrived,
)
counters = st.dictionaries(keys, st.integers(0, 15), max_size=6)
subscriptions = st.sets(keys, max_size=3)


def counted_events(log: list[Event]) -> dict[Key, list[int]]:
    """The quantities of each key that has any: the first valid event of each request id counts."""
    found: dict[Key, list[int]] = {}
    seen: set[str] = set()
    for event in sorted(filter(lambda event: event.is_valid, log), key=lambda event: event.arrived):
        if event.request_id not in seen:
            seen.add(event.request_id)
            found.setdefault((event.customer, event.period), []).append(event.quantity or 0)
    return found


def model_doubtful(log: list[Event]) -> set[Key]:
    """The keys with an event whose request id one of another key, or of another sign, has: nothing is decided."""
    events_of: dict[str, list[Event]] = {}
    for event in filter(lambda event: event.is_valid, log):
        events_of.setdefault(event.request_id, []).append(event)
    doubtful: set[Key] = set()
    for events in events_of.values():
        keys = {(event.customer, event.period) for event in events}
        quantities = [event.quantity or 0 for event in events]
        if len(keys) > 1 or len({(quantity > 0) - (quantity < 0) for quantity in quantities}) > 1:
            doubtful |= keys
    return doubtful


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


def run_over_both_months(billing: Billing, *, refuses_negative: bool = True) -> Run:
    quotas = {USAGE: Quota(free=FREE, paid=PAID)}
    return new_run(billing.url, last="2025-07", quotas=quotas, refuses_negative=refuses_negative)


def test_comparison_and_repair_do_what_the_model_says(make_billing: MakeBilling) -> None:
    billing = make_billing(SHAPE)

    @settings(max_examples=25, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(log=logs, counted=counters, subscribed=subscriptions, refuses_negative=st.booleans())
    def agree(log: list[Event], counted: dict[Key, int], subscribed: set[Key], refuses_negative: bool) -> None:
        write(billing, log, counted, subscribed)
        quantities = counted_events(log)
        sums = {key: sum(of_key) for key, of_key in quantities.items()}
        expected = model_ledger(sums, counted, subscribed)
        refused = {key for key in expected if refuses_negative and min(quantities.get(key, [0])) < 0}
        doubtful = expected.keys() & (model_doubtful(log) | refused)
        repaired = {key: row for key, row in expected.items() if key not in doubtful}
        run = run_over_both_months(billing, refuses_negative=refuses_negative)

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
        assert summary.over_quota_transitions == sum(bool(row[4]) for row in repaired.values())
        assert summary.under_quota_transitions == sum(bool(row[5]) for row in repaired.values())
        assert summary.usage_missed == sum(max(row[2] - (row[1] or 0), 0) for row in expected.values())
        assert summary.usage_excess == sum(max((row[1] or 0) - row[2], 0) for row in expected.values())

        outcome = run.repair()

        assert (outcome.repaired, outcome.doubtful) == (len(repaired), len(doubtful))
        assert outcome.failed == outcome.deferred == outcome.untouched == outcome.in_sync == 0
        columns = (
            "kind, usage_count_before, usage_count_after, usage_limit, over_quota_transition, under_quota_transition"
        )
        assert read(billing, columns, "recon.counter_repair") == repaired
        after = read(billing, "usage_count", f"billing_usage_counters where gateway_name = '{GATEWAY}'")
        left = {key: (value,) for key, value in counted.items()}
        assert after == left | {key: (row[2],) for key, row in repaired.items()}
        assert run.verify().mismatch_count == run.verify().doubtful_count == len(doubtful)

    agree()
