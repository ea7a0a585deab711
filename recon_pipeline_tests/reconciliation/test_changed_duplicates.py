"""Logs that admit a request id more than once, read in increments: which event counts, also when the first one goes."""

import pytest

from recon_pipeline_tests.reconciliation.billing import JUNE, MAY, Billing
from recon_pipeline_tests.reconciliation.conftest import MakeBilling, install_increments
from recon_pipeline_tests.reconciliation.increments import advance, aggregated, compared, event_sums, tick, wrong_totals
from recon_pipeline_tests.reconciliation.product import Run, mismatch_count, new_run
from recon_pipeline_tests.reconciliation.test_table_shapes import FIRST, INDEXED, NO_UNIQUE, PARTITIONED, SECOND

PARTITIONS_DIFFER = "a partition of billing_usage_events was attached, detached, created or dropped"
SHAPES = pytest.mark.parametrize("shape", [NO_UNIQUE + INDEXED, PARTITIONED + INDEXED])


def both_months(billing: Billing) -> Run:
    return new_run(billing.url, last="2025-06")


def advanced(billing: Billing) -> dict[str, int]:
    """Event sums after an advance that rebuilds nothing; all of them are stored."""
    done = advance(both_months(billing))
    assert done.rebuilt_because is None
    sums = event_sums(both_months(billing))
    assert aggregated(billing) == sums
    assert wrong_totals(billing) == []
    return sums


@pytest.fixture
def repeated(make_incremental_billing: MakeBilling, request: pytest.FixtureRequest) -> Billing:
    """Request id `r` came from `a` with 3, then from `b` with 5 in June, then from `a` with 7; `a` has used 1 more."""
    billing = make_incremental_billing(request.param)
    billing.add_event("a", 1)
    advanced(billing)
    for customer, quantity, period, created_at in (
        ("a", 3, MAY, SECOND),
        ("b", 5, JUNE, FIRST),
        ("a", 7, MAY, FIRST),
    ):
        billing.add_event(customer, quantity, period=period, created_at=created_at, request_id="r")
    return billing


REPEATED = pytest.mark.parametrize("repeated", [NO_UNIQUE + INDEXED, PARTITIONED + INDEXED], indirect=True)


@REPEATED
@pytest.mark.parametrize("is_absorbed", [False, True])
def test_when_the_first_of_two_events_goes_the_other_counts_also_for_another_key(
    repeated: Billing, is_absorbed: bool
) -> None:
    if is_absorbed:
        assert advanced(repeated) == {"a": 4}
    assert event_sums(both_months(repeated)) == {"a": 4}

    repeated.query("delete from billing_usage_events where request_id = 'r' and quantity = 3")
    assert event_sums(both_months(repeated)) == {"a": 1, "b": 5}
    assert advanced(repeated) == {"a": 1, "b": 5}

    repeated.query("delete from billing_usage_events where request_id = 'r' and quantity = 5")
    assert event_sums(both_months(repeated)) == {"a": 8}
    assert advanced(repeated) == {"a": 8}


@REPEATED
@pytest.mark.parametrize(
    ("change", "sums"),
    [
        ("set request_id = 'another' where quantity = 3", {"a": 4, "b": 5}),
        ("set request_id = 'r' where quantity = 1", {"a": 1}),
        ("set quantity = 30 where quantity = 7", {"a": 4}),
        ("set gateway_name = 'paddle' where quantity = 3", {"a": 1, "b": 5}),
        ("set gateway_customer_id = 'c' where quantity = 3", {"a": 1, "c": 3}),
        ("set usage_type = 'sms_messages' where quantity = 3", {"a": 1}),
    ],
)
def test_an_update_that_changes_which_event_is_first_is_seen_in_every_key(
    repeated: Billing, change: str, sums: dict[str, int]
) -> None:
    advanced(repeated)

    repeated.query(f"update billing_usage_events {change}")

    assert event_sums(both_months(repeated)) == sums
    assert advanced(repeated) == sums
    assert mismatch_count(repeated.url, last="2025-06") == len(sums)


@SHAPES
def test_the_first_to_arrive_is_of_the_older_transaction_also_when_that_commits_last(
    make_incremental_billing: MakeBilling, shape: str
) -> None:
    billing = make_incremental_billing(shape)
    tick(billing.url, last="2025-06")
    with billing.session() as older:
        older.add_event("a", 3, request_id="r")
        billing.add_event("b", 5, request_id="r", period=JUNE)
        tick(billing.url, last="2025-06")
        assert (billing.counters(), billing.counters(period=JUNE)) == ({}, {"b": 5})
        older.connection.commit()

    assert {row[:3:2] for row in compared(billing.url, last="2025-06")[1]} == {("a", "missing"), ("b", "orphan")}
    tick(billing.url, last="2025-06")

    assert advanced(billing) == {"a": 3}
    assert (billing.counters(), billing.counters(period=JUNE)) == ({}, {"b": 5}), "of which nothing is decided"
    assert mismatch_count(billing.url, last="2025-06") == 2


@SHAPES
def test_an_invalid_event_never_takes_the_place_of_a_valid_one(
    make_incremental_billing: MakeBilling, shape: str
) -> None:
    billing = make_incremental_billing(f"{shape} alter table billing_usage_events alter quantity drop not null")
    billing.query("alter table billing_usage_events drop constraint if exists billing_usage_events_quantity_check")
    billing.add_event("a", None, request_id="r")
    advanced(billing)
    billing.add_event("b", 5, request_id="r")
    assert advanced(billing) == {"b": 5}

    billing.query("update billing_usage_events set quantity = 3 where quantity is null")

    assert event_sums(both_months(billing)) == {"a": 3}
    assert advanced(billing) == {"a": 3}


@SHAPES
def test_a_truncated_log_with_repeated_request_ids_is_built_anew(
    make_incremental_billing: MakeBilling, shape: str
) -> None:
    billing = make_incremental_billing(shape)
    billing.add_event("a", 3, request_id="r")
    advanced(billing)
    billing.query("truncate billing_usage_events")
    billing.add_event("b", 5, request_id="r")

    assert advance(both_months(billing)).rebuilt_because == "the log was truncated"
    assert advanced(billing) == {"b": 5}


def test_a_partition_that_goes_or_comes_has_everything_built_anew(make_incremental_billing: MakeBilling) -> None:
    billing = make_incremental_billing(PARTITIONED + INDEXED)
    for customer, created_at in (("a", FIRST), ("b", SECOND)):
        billing.add_event(customer, 10, created_at=created_at)
    assert advanced(billing) == {"a": 10, "b": 10}

    billing.query("alter table billing_usage_events detach partition billing_usage_events_late")
    assert mismatch_count(billing.url) == 1
    assert advance(both_months(billing)).rebuilt_because == PARTITIONS_DIFFER
    assert advanced(billing) == {"a": 10}

    billing.query("insert into billing_usage_events_late select * from billing_usage_events_late limit 0")
    billing.query("update billing_usage_events_late set quantity = 30")
    billing.query(
        "alter table billing_usage_events attach partition billing_usage_events_late "
        "for values from ('2025-05-15 00:00Z') to (maxvalue)"
    )
    install_increments(billing.url)
    assert mismatch_count(billing.url) == 2
    assert advance(both_months(billing)).rebuilt_because == PARTITIONS_DIFFER
    assert advanced(billing) == {"a": 10, "b": 30}


@pytest.mark.parametrize("change", ["truncate {}", "delete from {}", "update {} set quantity = 30"])
def test_a_change_made_to_a_partition_itself_is_noticed(make_incremental_billing: MakeBilling, change: str) -> None:
    billing = make_incremental_billing(PARTITIONED + INDEXED)
    for customer, created_at in (("a", FIRST), ("b", SECOND)):
        billing.add_event(customer, 10, created_at=created_at)
    tick(billing.url)
    billing.query(change.format("billing_usage_events_late"))

    tick(billing.url)

    assert billing.counters() == {"a": 10, "b": 30 if "30" in change else 0}


def test_an_event_that_an_update_moves_to_another_partition_is_counted_once(
    make_incremental_billing: MakeBilling,
) -> None:
    billing = make_incremental_billing(PARTITIONED + INDEXED)
    for quantity in (10, 1):
        billing.add_event("a", quantity, created_at=FIRST)
    advanced(billing)

    billing.query("update billing_usage_events set created_at = %s where quantity = 10", SECOND)

    assert event_sums(both_months(billing)) == {"a": 11}
    assert advanced(billing) == {"a": 11}
