"""One poison key stops one key: what Postgres refuses fails by itself, with its error; all others are repaired."""

from collections.abc import Sequence
from itertools import pairwise

import pytest

from recon_pipeline_tests.reconciliation.billing import BIGINT_MAX, Billing, customers
from recon_pipeline_tests.reconciliation.conftest import MakeBilling
from recon_pipeline_tests.reconciliation.increments import tick
from recon_pipeline_tests.reconciliation.product import new_run, reconcile
from recon_pipeline_tests.support.assets import run_assets

POISON = "customer_0003"
OTHERS = [customer for customer in customers(7) if customer != POISON]
BIGINT_QUANTITY = "alter table billing_usage_events alter quantity type bigint;"
NUMERIC_QUANTITY = "alter table billing_usage_events alter quantity type numeric;"
ON_COUNTERS = """
    create function meddle() returns trigger language plpgsql as $$
    begin if new.gateway_customer_id = 'customer_0003' then {act} end if; return new; end $$;
    create trigger meddle before {event} on billing_usage_counters for each row execute function meddle();
"""


def let_drift(billing: Billing, *, poison: Sequence[object] = (10,), counted: int | None = 3) -> None:
    """All customers have used 10 and are counted 3, but the poison key: these quantities and this counter, or none."""
    for customer in OTHERS:
        billing.add_event(customer, 10)
        billing.add_counter(customer, 3)
    for quantity in poison:
        billing.add_event(POISON, quantity)
    if counted is not None:
        billing.add_counter(POISON, counted)


def assert_only_the_poison_key_failed(billing: Billing, said: str, *, left: int | None = 3) -> None:
    run = new_run(billing.url)
    run.compare()
    outcome = run.repair()

    assert (outcome.repaired, outcome.failed) == (len(OTHERS), 1)
    ((customer, error),) = billing.query(
        "select gateway_customer_id, error from recon.counter_drift where outcome = 'failed'"
    )
    assert customer == POISON
    assert said in error
    expected = dict.fromkeys(OTHERS, 10) | ({} if left is None else {POISON: left})
    assert billing.counters() == expected
    answer = run.verify()
    assert (answer.mismatch_count, answer.deferred_count) == (1, 0)
    assert said in answer.sample[0].error


def test_a_sum_past_bigint_fails_its_key_alone(make_billing: MakeBilling) -> None:
    billing = make_billing(BIGINT_QUANTITY)
    let_drift(billing, poison=[BIGINT_MAX, 1])

    assert_only_the_poison_key_failed(billing, "is more than a bigint holds")


def test_a_sum_of_exactly_the_largest_bigint_is_repaired(make_billing: MakeBilling) -> None:
    billing = make_billing(BIGINT_QUANTITY)
    let_drift(billing, poison=[BIGINT_MAX - 1, 1])

    assert reconcile(billing.url).failed == 0
    assert billing.counter(POISON) == BIGINT_MAX


@pytest.mark.parametrize(
    ("quantities", "said"),
    [
        ([10**30], f"the event sum {10**30} is more than a bigint holds"),
        ([10**200], "is more than a bigint holds"),
        (["0.5"], "the event sum 0.5 is not a whole number"),
        (["10.25", "1"], "the event sum 11.25 is not a whole number"),
    ],
)
def test_a_numeric_sum_that_no_counter_can_store_fails_its_key_alone(
    make_billing: MakeBilling, quantities: list[object], said: str
) -> None:
    billing = make_billing(NUMERIC_QUANTITY)
    let_drift(billing, poison=quantities)

    assert_only_the_poison_key_failed(billing, said)


def test_fractions_that_add_up_to_a_whole_number_are_repaired(make_billing: MakeBilling) -> None:
    billing = make_billing(NUMERIC_QUANTITY)
    let_drift(billing, poison=["0.5", "1.50", "2.000"])

    assert reconcile(billing.url).failed == 0
    assert billing.counter(POISON) == 4


def test_a_value_that_a_check_on_counters_refuses_fails_its_key_alone(make_billing: MakeBilling) -> None:
    billing = make_billing("alter table billing_usage_counters add constraint at_most_100 check (usage_count <= 100)")
    let_drift(billing, poison=[101])

    assert_only_the_poison_key_failed(billing, "at_most_100")


@pytest.mark.parametrize(
    ("act", "said", "left"),
    [
        ("return null;", "the table suppressed the update of this counter", 3),
        ("new.usage_count := 8;", "the table changed the repaired value 10 to 8", 8),
        ("raise exception 'not this one';", "not this one", 3),
    ],
)
def test_an_update_that_a_trigger_meddles_with_fails_its_key_alone(
    make_billing: MakeBilling, act: str, said: str, left: int
) -> None:
    billing = make_billing()
    let_drift(billing)
    billing.connection.execute(ON_COUNTERS.format(act=act, event="update").encode())

    assert_only_the_poison_key_failed(billing, said, left=left)
    repaired = dict((row[0], row[3]) for row in billing.ledger())
    assert repaired.get(POISON, 3) == left, "the ledger must say what the counter became"


@pytest.mark.parametrize(
    ("act", "said"),
    [
        ("return null;", "the table did not take a counter for this key"),
        ("raise exception 'not this one';", "not this one"),
    ],
)
def test_a_missing_counter_that_a_trigger_keeps_out_fails_its_key_alone(
    make_billing: MakeBilling, act: str, said: str
) -> None:
    billing = make_billing(ON_COUNTERS.format(act=act, event="insert"))
    let_drift(billing, counted=None)

    assert_only_the_poison_key_failed(billing, said, left=None)


def test_a_parent_that_vanished_fails_its_key_alone(make_billing: MakeBilling) -> None:
    billing = make_billing(
        """
        create table billing_customers (id text primary key);
        insert into billing_customers select 'customer_000' || number from generate_series(0, 6) as number;
        alter table billing_usage_counters add foreign key (gateway_customer_id) references billing_customers
            on delete cascade;
        """
    )
    let_drift(billing)
    billing.query("delete from billing_customers where id = %s", POISON)
    assert billing.counter(POISON) is None, "the counter goes with its customer, the events of this log stay"

    assert_only_the_poison_key_failed(billing, "violates foreign key constraint", left=None)


def test_a_counter_without_a_count_fails_its_key_alone(make_billing: MakeBilling) -> None:
    billing = make_billing("alter table billing_usage_counters alter usage_count drop not null;")
    let_drift(billing)
    billing.query("update billing_usage_counters set usage_count = null where gateway_customer_id = %s", POISON)
    run = new_run(billing.url)
    run.compare()

    outcome = run.repair()

    assert (outcome.repaired, outcome.failed) == (len(OTHERS), 1)
    assert billing.counters() == dict.fromkeys(OTHERS, 10) | {POISON: None}
    (reported,) = run.verify().sample
    assert reported.gateway_customer_id == POISON
    assert "its usage_count is null" in reported.error
    billing.set_counter(POISON, 0)
    assert reconcile(billing.url).repaired == 1
    assert billing.counter(POISON) == 10


def test_a_key_that_stays_refused_does_not_keep_what_counts_as_verified_from_moving(
    make_incremental_billing: MakeBilling,
) -> None:
    billing = make_incremental_billing(
        "alter table billing_usage_counters add constraint at_most_100 check (usage_count <= 100)"
    )
    let_drift(billing, poison=[101])
    marks: list[tuple[int, int]] = []
    for _ in range(3):
        tick(billing.url)
        billing.record(OTHERS[0], 1)
        ((events, counters),) = billing.query(
            "select verified_below::text::bigint, counters_verified_below::text::bigint from recon.usage_month"
        )
        marks.append((events, counters))
        assert [tuple(row) for row in billing.query("select gateway_customer_id, reason from recon.open_key")] == [
            (POISON, "failed")
        ]

    for before, after in pairwise(marks):
        assert all(late > early for early, late in zip(before, after, strict=True)), marks
    billing.query("alter table billing_usage_counters drop constraint at_most_100")
    tick(billing.url)
    assert billing.counter(POISON) == 101
    assert billing.value("select count(*) from recon.open_key") == 0


def test_poison_at_every_place_of_a_chunk_stops_nothing_else(make_billing: MakeBilling) -> None:
    billing = make_billing("alter table billing_usage_counters add constraint even check (usage_count % 2 = 0)")
    for number, customer in enumerate(customers(9)):
        billing.add_event(customer, 10 + number)

    outcome = reconcile(billing.url)

    assert (outcome.repaired, outcome.failed) == (5, 4)
    assert billing.counters() == {f"customer_000{number}": 10 + number for number in range(0, 9, 2)}


def test_a_run_with_a_poison_key_ends_visibly_not_clean(
    make_billing: MakeBilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    billing = make_billing(BIGINT_QUANTITY)
    monkeypatch.setenv("DATABASE_URL", billing.url)
    let_drift(billing, poison=[BIGINT_MAX, 1])

    result = run_assets()

    check = result.check("counters_match_event_sums")
    assert not check.passed
    assert check.severity.value == "ERROR"
    assert not result.check("event_sums_fit_counters").passed
    assert billing.query("select outcome, reconcile_failures, rows_repaired from recon.reconciliation_run") == [
        ("not_clean", 1, len(OTHERS))
    ]
    assert billing.counters() == dict.fromkeys(OTHERS, 10) | {POISON: 3}
