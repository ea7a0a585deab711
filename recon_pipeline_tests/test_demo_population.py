"""The population of the demo's six months, without a database."""

from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest

from recon_pipeline.faces.demo.population import (
    PERIODS_PER_CUSTOMER,
    Period,
    Population,
    make_population,
    monthly_periods,
)
from recon_pipeline.faces.demo.traffic import deal

NOW = datetime(2026, 3, 30, 15, 45, tzinfo=UTC)


def small_population(*, seed: int = 7, events: int = 5_000, customers: int = 300, now: datetime = NOW) -> Population:
    return make_population(seed=seed, events=events, customers=customers, now=now)


def test_the_same_seed_sizes_and_day_give_the_same_plan_byte_for_byte() -> None:
    morning, evening = NOW.replace(hour=0, minute=0), NOW.replace(hour=23, minute=59)
    first, second = small_population(now=morning), small_population(now=evening)
    assert repr(first).encode() == repr(second).encode()
    assert repr(list(first.events())).encode() == repr(list(second.events())).encode()


@pytest.mark.parametrize("other", [small_population(seed=8), small_population(now=NOW + timedelta(days=1))])
def test_another_seed_or_day_gives_another_population(other: Population) -> None:
    assert list(other.events()) != list(small_population().events())


@pytest.mark.parametrize(("events", "customers"), [(0, 1), (1, 1), (1, 30), (997, 24), (997, 25), (20_000, 101)])
def test_exactly_as_many_events_are_planned_as_were_asked_for(events: int, customers: int) -> None:
    population = small_population(events=events, customers=customers)
    assert len(population.customers) == customers
    assert sum(customer.event_count for customer in population.customers) == events
    assert sum(1 for _ in population.events()) == events


def test_request_ids_are_unique() -> None:
    request_ids = [event.request_id for event in small_population().events()]
    assert len(set(request_ids)) == len(request_ids)


@pytest.mark.parametrize("anchor_day", range(1, 32))
@pytest.mark.parametrize(
    "at",
    [
        datetime(2026, 3, 30, tzinfo=UTC),
        datetime(2026, 3, 31, tzinfo=UTC),
        datetime(2026, 2, 28, tzinfo=UTC),
        datetime(2024, 2, 29, tzinfo=UTC),
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC),
    ],
)
def test_periods_are_six_contiguous_months_that_end_with_the_open_one(anchor_day: int, at: datetime) -> None:
    periods = monthly_periods(anchor_day, at, PERIODS_PER_CUSTOMER)
    months = [period.start.year * 12 + period.start.month for period in periods]
    assert months == list(range(months[0], months[0] + 6))
    assert all(earlier.end == later.start for earlier, later in pairwise(periods))
    assert periods[-1].start <= at < periods[-1].end
    for period in periods:
        next_day = period.start + timedelta(days=1)
        assert period.start.day == anchor_day or (period.start.day < anchor_day and next_day.day == 1)


def test_an_anchor_that_a_month_lacks_is_clipped_to_its_last_day() -> None:
    start, leap, end = (datetime(2024, month, day, tzinfo=UTC) for month, day in ((1, 31), (2, 29), (3, 31)))
    assert monthly_periods(31, leap, 2) == (Period(start, leap), Period(leap, end))
    assert monthly_periods(31, datetime(2025, 2, 27, tzinfo=UTC), 1) == (
        Period(datetime(2025, 1, 31, tzinfo=UTC), datetime(2025, 2, 28, tzinfo=UTC)),
    )


def test_every_event_lies_in_a_period_of_its_customer_and_before_now() -> None:
    population = small_population()
    periods = {customer.customer_id: customer.periods for customer in population.customers}
    for event in population.events():
        assert event.period in periods[event.customer_id]
        assert event.period.start <= event.event_timestamp < event.period.end
        assert event.event_timestamp < NOW


def test_quantities_are_mostly_one_and_never_above_five() -> None:
    quantities = Counter(event.quantity for event in small_population().events())
    assert set(quantities) == {1, 2, 3, 4, 5}
    assert 0.75 < quantities[1] / quantities.total() < 0.87


def test_a_few_customers_send_most_of_the_events() -> None:
    counts = sorted((customer.event_count for customer in small_population().customers), reverse=True)
    assert sum(counts[:30]) > sum(counts[30:])


def test_some_customers_join_late_some_never_send_anything_and_every_status_occurs() -> None:
    population = small_population()
    period_counts = {len(customer.periods) for customer in population.customers}
    assert period_counts == {2, 3, 4, 5, 6}
    assert {customer.status for customer in population.customers} == {"active", "trialing", "canceled", None}
    idle = [customer for customer in population.customers if customer.event_count == 0]
    assert len(idle) >= 300 // 25
    assert any(customer.status == "trialing" for customer in idle)


def test_a_subscription_is_in_its_open_period_unless_it_was_canceled() -> None:
    for customer in small_population().customers:
        period = customer.subscription_period
        assert period in customer.periods
        assert (period.start <= NOW < period.end) == (customer.status != "canceled")


def test_now_may_be_in_any_time_zone_but_has_to_be_in_one() -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=9)))
    assert small_population(now=elsewhere) == small_population()
    with pytest.raises(ValueError, match="aware"):
        small_population(now=NOW.replace(tzinfo=None))


@pytest.mark.parametrize(("events", "customers"), [(-1, 10), (10, 0)])
def test_sizes_out_of_range_are_refused(events: int, customers: int) -> None:
    with pytest.raises(ValueError, match="cannot make"):
        small_population(events=events, customers=customers)


def test_batches_contain_every_event_once_and_each_is_in_the_order_of_its_keys() -> None:
    """Prevents deadlocks: who locks counters in one order for all never waits in a circle."""
    population = small_population()
    batches = list(deal(population, hands=4, batch_events=50))
    assert sorted(event.request_id for batch in batches for event in batch) == sorted(
        event.request_id for event in population.events()
    )
    for batch in batches:
        keys = [(event.customer_id, event.period.start) for event in batch]
        assert keys == sorted(keys)
        assert 1 <= len(batch) <= 50


def test_batches_that_are_played_together_share_counters() -> None:
    together = list(deal(small_population(), hands=4, batch_events=50))[:4]
    keys = [{(event.customer_id, event.period) for event in batch} for batch in together]
    assert keys[0] & keys[1] & keys[2] & keys[3]
