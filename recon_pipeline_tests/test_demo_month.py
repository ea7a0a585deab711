"""The demo's month on a real Postgres: right before the mishaps, then wrong exactly as reported."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from random import Random
from typing import Any

import psycopg
import pytest

from recon_pipeline.core.errors import ConfigurationError, StatementFailedError
from recon_pipeline.faces import demo
from recon_pipeline.faces.demo import MonthNotEmptyError, Story, play_the_month
from recon_pipeline.faces.demo.counters import CounterKey
from recon_pipeline.faces.demo.mishaps import let_it_all_happen
from recon_pipeline.faces.demo.population import make_population
from recon_pipeline.faces.demo.traffic import RecordingError, insert_subscriptions, record_events

NOW = datetime(2026, 3, 30, 15, 45, tzinfo=UTC)
EVENTS, CUSTOMERS, SEED = 3_000, 150, 7

DRIFT = """
    select
        key.gateway_customer_id, key.period_start at time zone 'utc', key.period_end at time zone 'utc',
        case
            when key.usage_count is null then 'missing'
            when key.event_sum is null then 'orphan'
            when key.usage_count < key.event_sum then 'under'
            else 'over'
        end,
        coalesce(key.usage_count, 0),
        coalesce(key.event_sum, 0)::bigint,
        case when exists (
            select from billing_subscriptions as subscription
            where subscription.gateway_customer_id = key.gateway_customer_id
              and subscription.gateway_name = key.gateway_name
              and subscription.status in ('active', 'trialing')
              and subscription.current_period_start <= key.period_start
              and subscription.current_period_end >= key.period_end
        ) then 10000 else 50 end
    from (
        select *
        from billing_usage_counters
        full join (
            select gateway_name, gateway_customer_id, usage_type, period_start, period_end,
                sum(quantity) as event_sum
            from billing_usage_events
            group by 1, 2, 3, 4, 5
        ) as log using (gateway_name, gateway_customer_id, usage_type, period_start, period_end)
    ) as key
    where coalesce(key.usage_count, 0) <> coalesce(key.event_sum, 0)
"""

CONTENTS = {
    "billing_usage_events": """
        select gateway_name, gateway_customer_id, usage_type, request_id, quantity, period_start, period_end,
            event_timestamp, metadata::text
        from billing_usage_events order by request_id
    """,
    "billing_usage_counters": """
        select gateway_name, gateway_customer_id, usage_type, period_start, period_end, usage_count
        from billing_usage_counters order by gateway_customer_id, period_start
    """,
    "billing_subscriptions": """
        select gateway_name, gateway_customer_id, status, current_period_start, current_period_end
        from billing_subscriptions order by gateway_customer_id
    """,
}


@dataclass(frozen=True)
class Drift:
    key: CounterKey
    kind: str
    counter: int
    event_sum: int
    limit: int

    @property
    def is_over_quota_transition(self) -> bool:
        return self.counter < self.limit <= self.event_sum

    @property
    def is_under_quota_transition(self) -> bool:
        return self.event_sum < self.limit <= self.counter


@dataclass
class RecordedProgress:
    calls: list[tuple[str, object]] = field(default_factory=list[tuple[str, object]])

    def start(self, label: str, total: int) -> None:
        self.calls.append(("start", total))

    def advance(self, n: int) -> None:
        self.calls.append(("advance", n))

    def finish(self) -> None:
        self.calls.append(("finish", None))


def play(url: str, *, events: int = EVENTS, customers: int = CUSTOMERS, seed: int = SEED) -> Story:
    return play_the_month(url, events=events, customers=customers, seed=seed, now=NOW, progress=RecordedProgress())


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


def drift(url: str) -> list[Drift]:
    return [
        Drift(CounterKey(customer, start.replace(tzinfo=UTC), end.replace(tzinfo=UTC)), kind, *numbers)
        for customer, start, end, kind, *numbers in rows(url, DRIFT)
    ]


def record_only(url: str) -> None:
    population = make_population(seed=SEED, events=EVENTS, customers=CUSTOMERS, now=NOW)
    with psycopg.connect(url, autocommit=True) as connection:
        insert_subscriptions(connection, population)
    assert record_events(url, population, lambda _: None) == EVENTS


@pytest.fixture
def another_billing_database_url(create_database: Callable[..., str]) -> str:
    """A second fresh database that holds the billing tables."""
    url = create_database()
    with psycopg.connect(url) as connection:
        connection.execute((resources.files("recon_pipeline.store.log") / "billing_tables.sql").read_bytes())
    return url


def test_before_the_mishaps_every_counter_equals_its_event_sum(billing_database_url: str) -> None:
    record_only(billing_database_url)
    assert drift(billing_database_url) == []
    assert rows(billing_database_url, "select count(*) from billing_usage_events") == [(EVENTS,)]


def test_after_the_mishaps_exactly_the_keys_they_name_drift_by_what_they_say(
    billing_database_url: str,
) -> None:
    story = play(billing_database_url)
    found = {each.key: each for each in drift(billing_database_url)}
    named = [key for mishap in story.mishaps for key in mishap.keys]
    assert len(set(named)) == len(named) == story.drift_count
    assert set(found) == set(named)
    for mishap in story.mishaps:
        drifted = [found[key] for key in mishap.keys]
        assert sum(abs(each.counter - each.event_sum) for each in drifted) == mishap.quantity
        assert mishap.story.endswith(".")


def test_every_kind_of_drift_occurs_and_a_few_customers_cross_their_limit(billing_database_url: str) -> None:
    story = play(billing_database_url)
    found = drift(billing_database_url)
    kinds = Counter(each.kind for each in found)
    assert set(kinds) == {"missing", "under", "over", "orphan"}
    assert kinds["orphan"] < 20
    assert len(found) < 0.05 * story.counter_count
    by_name = {mishap.name: set(mishap.keys) for mishap in story.mishaps}
    assert {each.key for each in found if each.is_over_quota_transition} == by_name["limit not enforced"]
    assert {each.key for each in found if each.is_under_quota_transition} == (
        by_name["blocked by mistake"] | by_name["edited by hand"]
    )


def test_late_events_belong_to_two_different_periods_and_lie_inside_them(billing_database_url: str) -> None:
    play(billing_database_url)
    late = rows(
        billing_database_url,
        "select period_start, event_timestamp >= period_start and event_timestamp < period_end "
        "from billing_usage_events where request_id like 'late%'",
    )
    assert all(is_inside for _, is_inside in late)
    assert max(start for start, _ in late) > min(start for start, _ in late)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_smallest_month_that_is_allowed_goes_wrong_in_every_way(billing_database_url: str, seed: int) -> None:
    story = play(billing_database_url, events=demo.LEAST_EVENTS, customers=demo.LEAST_CUSTOMERS, seed=seed)
    found = drift(billing_database_url)
    assert len(found) == story.drift_count
    assert {each.kind for each in found} == {"missing", "under", "over", "orphan"}


def test_the_same_seed_fills_two_databases_alike(billing_database_url: str, another_billing_database_url: str) -> None:
    first, second = play(billing_database_url), play(another_billing_database_url)
    assert first == second
    for query in CONTENTS.values():
        assert rows(billing_database_url, query) == rows(another_billing_database_url, query)


def test_the_story_counts_what_the_tables_hold(billing_database_url: str) -> None:
    story = play(billing_database_url)
    late = rows(billing_database_url, "select count(*) from billing_usage_events where request_id like 'late%'")
    assert story.customer_count == CUSTOMERS
    assert story.event_count == EVENTS + late[0][0]
    for count, table in (
        (story.counter_count, "billing_usage_counters"),
        (story.subscription_count, "billing_subscriptions"),
    ):
        assert rows(billing_database_url, f"select count(*) from {table}") == [(count,)]


def test_progress_reports_every_event_and_every_mishap(billing_database_url: str) -> None:
    progress = RecordedProgress()
    story = play_the_month(
        billing_database_url, events=EVENTS, customers=CUSTOMERS, seed=SEED, now=NOW, progress=progress
    )
    steps = [number for call, number in progress.calls if call == "advance" and isinstance(number, int)]
    assert [each for each in progress.calls if each[0] != "advance"] == [
        ("start", EVENTS),
        ("finish", None),
        ("start", len(story.mishaps)),
        ("finish", None),
    ]
    assert sum(steps) == EVENTS + len(story.mishaps)


@pytest.mark.parametrize("table", list(CONTENTS))
def test_a_month_is_never_played_into_tables_that_have_rows(billing_database_url: str, table: str) -> None:
    fillers = {
        "billing_usage_events": (
            "insert into billing_usage_events (gateway_name, gateway_customer_id, usage_type, request_id, "
            "period_start, period_end) values ('stripe', 'cus_1', 'sms', 'r', '2026-01-01', '2026-02-01')"
        ),
        "billing_usage_counters": (
            "insert into billing_usage_counters (gateway_name, gateway_customer_id, usage_type, "
            "period_start, period_end) values ('stripe', 'cus_1', 'sms', '2026-01-01', '2026-02-01')"
        ),
        "billing_subscriptions": (
            "insert into billing_subscriptions (gateway_name, gateway_customer_id, status, "
            "current_period_start, current_period_end) "
            "values ('stripe', 'cus_1', 'active', '2026-01-01', '2026-02-01')"
        ),
    }
    with psycopg.connect(billing_database_url) as connection:
        connection.execute(fillers[table].encode())
    before = {name: rows(billing_database_url, query) for name, query in CONTENTS.items()}
    with pytest.raises(MonthNotEmptyError, match=table):
        play(billing_database_url)
    assert {name: rows(billing_database_url, query) for name, query in CONTENTS.items()} == before


def test_missing_billing_tables_are_named_with_the_command_that_creates_them(
    billing_database_url: str,
) -> None:
    with psycopg.connect(billing_database_url) as connection:
        connection.execute("drop table billing_subscriptions")
    with pytest.raises(StatementFailedError, match="recon init --with-billing-tables"):
        play(billing_database_url)


@pytest.mark.parametrize(("events", "customers"), [(1_999, 150), (3_000, 99)])
def test_a_month_too_small_to_go_wrong_is_refused_at_once(events: int, customers: int) -> None:
    with pytest.raises(ConfigurationError, match="at least"):
        play("postgresql://nobody@192.0.2.1/none", events=events, customers=customers)


def test_an_event_that_was_there_already_is_an_error_and_not_counted_twice(billing_database_url: str) -> None:
    record_only(billing_database_url)
    population = make_population(seed=SEED, events=EVENTS, customers=CUSTOMERS, now=NOW)
    with pytest.raises(RecordingError, match="there already"):
        record_events(billing_database_url, population, lambda _: None)
    assert drift(billing_database_url) == []


def test_a_mishap_that_fails_takes_the_others_back_with_it(billing_database_url: str) -> None:
    record_only(billing_database_url)

    class Interruption(Exception):
        pass

    def fail_after_the_third(_: int) -> None:
        steps.append(1)
        if len(steps) == 3:
            raise Interruption

    steps: list[int] = []
    with psycopg.connect(billing_database_url, autocommit=True) as connection, pytest.raises(Interruption):
        let_it_all_happen(connection, Random(SEED), NOW, fail_after_the_third)  # noqa: S311 - has to be repeatable
    assert drift(billing_database_url) == []
