"""Applications arrive with tables that differ: constraints absent, types wider, a partitioned log, another schema."""

import uuid
from datetime import UTC, datetime

import pytest

from recon_pipeline.store.sums import quality
from recon_pipeline_tests.reconciliation.billing import JUNE, MAY, Billing
from recon_pipeline_tests.reconciliation.conftest import MakeBilling
from recon_pipeline_tests.reconciliation.product import mismatch_count, new_run, reconcile
from recon_pipeline_tests.support.assets import run_assets
from recon_pipeline_tests.support.logs import partitioned_log

NO_UNIQUE = "alter table billing_usage_events drop constraint billing_usage_events_gateway_name_request_id_key;"
NO_PRIMARY_KEY = "alter table billing_usage_events drop constraint billing_usage_events_pkey;"
INDEXED = "create index on billing_usage_events (request_id);"
PARTITIONED = f"""
    {partitioned_log("created_at")}
    create table billing_usage_events_early partition of billing_usage_events
        for values from (minvalue) to ('2025-05-15 00:00Z');
    create table billing_usage_events_late partition of billing_usage_events
        for values from ('2025-05-15 00:00Z') to (maxvalue);
"""
FIRST, SECOND = datetime(2025, 5, 10, tzinfo=UTC), datetime(2025, 5, 20, tzinfo=UTC)
WITHOUT_UNIQUE = pytest.mark.parametrize("shape", [NO_UNIQUE, NO_UNIQUE + INDEXED, PARTITIONED])


def duplicates(billing: Billing, *, first: str = "2025-05", last: str = "2025-05") -> int:
    run = new_run(billing.url, first=first, last=last)
    with run.decision("REPEATABLE READ") as (connection, tables):
        return quality.measure(connection, run.question, tables, None, since=None).quality.dedupe_count


@WITHOUT_UNIQUE
def test_a_repeated_request_id_counts_once_within_a_key(make_billing: MakeBilling, shape: str) -> None:
    billing = make_billing(shape)
    with billing.session() as application:  # one transaction, so that created_at decides in either mode
        application.add_event("a", 3, request_id="r", created_at=SECOND)
        application.add_event("a", 5, request_id="r", created_at=FIRST)
        application.add_event("a", 7, request_id="other", created_at=SECOND)
        application.connection.commit()

    reconcile(billing.url)

    assert billing.counters() == {"a": 12}, "the first to arrive counts"
    assert duplicates(billing) == 1
    assert mismatch_count(billing.url) == 0


@WITHOUT_UNIQUE
def test_a_request_id_of_several_keys_or_months_is_counted_for_none_of_them_and_reported_as_repeated(
    make_billing: MakeBilling, shape: str
) -> None:
    billing = make_billing(shape)
    billing.add_event("a", 3, request_id="r", created_at=FIRST)
    billing.add_event("b", 3, request_id="r", created_at=SECOND)
    billing.add_event("a", 3, request_id="r", created_at=SECOND, period=JUNE)
    billing.add_event("c", 2, request_id="of another gateway, too", created_at=FIRST)
    billing.add_event("c", 9, request_id="of another gateway, too", created_at=FIRST, gateway_name="paddle")
    billing.add_counter("b", 3)

    reconcile(billing.url, last="2025-06")

    assert billing.counters() == {"b": 3, "c": 2}
    assert billing.counters(period=JUNE) == {}
    assert billing.outcomes() == {"a": "doubtful", "b": "doubtful", "c": "repaired"}
    assert duplicates(billing, last="2025-06") == 2
    assert duplicates(billing, first="2025-06", last="2025-06") == 1
    assert mismatch_count(billing.url, last="2025-06") == 2


@pytest.mark.parametrize("shape", [NO_UNIQUE + NO_PRIMARY_KEY, NO_UNIQUE + NO_PRIMARY_KEY + INDEXED, PARTITIONED])
def test_duplicates_of_one_transaction_with_the_same_id_count_once(make_billing: MakeBilling, shape: str) -> None:
    billing = make_billing(shape)
    same = {"id": uuid.uuid4(), "request_id": "r", "created_at": FIRST}
    for _ in range(3):
        billing.add_event("a", 4, **same)

    reconcile(billing.url)

    assert billing.counters() == {"a": 4}
    assert duplicates(billing) == 2


def test_a_unique_key_on_the_request_id_alone_is_enough(make_billing: MakeBilling) -> None:
    billing = make_billing(NO_UNIQUE + "alter table billing_usage_events add unique (request_id)")

    assert new_run(billing.url).tables().refuses_repetitions


@pytest.mark.parametrize(
    "index",
    ["(gateway_name, request_id) where quantity > 1", "(gateway_name, lower(request_id))", "(request_id, quantity)"],
)
def test_an_index_that_admits_a_repetition_is_not_relied_on(make_billing: MakeBilling, index: str) -> None:
    billing = make_billing(f"{NO_UNIQUE} create unique index on billing_usage_events {index}")

    assert not new_run(billing.url).tables().refuses_repetitions


def test_a_partitioned_log_is_reconciled_by_the_job(make_billing: MakeBilling, monkeypatch: pytest.MonkeyPatch) -> None:
    billing = make_billing(PARTITIONED)
    monkeypatch.setenv("DATABASE_URL", billing.url)
    for created_at in (FIRST, SECOND):
        billing.add_event("a", 5, created_at=created_at)
        billing.add_event("b", 2, created_at=created_at, request_id="twice")

    result = run_assets()

    assert result.success, result.errors
    assert billing.counters() == {"a": 10, "b": 2}
    assert result.check("request_ids_are_unique").metadata["count"].value == 1


@pytest.mark.parametrize("quantity", ["smallint", "bigint", "numeric", "numeric(12,3)"])
@pytest.mark.parametrize("count", ["bigint", "integer"])
def test_wider_and_narrower_numbers_are_served(make_billing: MakeBilling, quantity: str, count: str) -> None:
    billing = make_billing(
        f"alter table billing_usage_events alter quantity type {quantity};"
        f"alter table billing_usage_counters alter usage_count type {count};"
    )
    for used in (100, 200):
        billing.add_event("a", used)
    billing.add_event("b", 1)
    billing.add_counter("b", 7)

    reconcile(billing.url)

    assert billing.counters() == {"a": 300, "b": 1}


def test_an_integer_counter_that_is_too_small_fails_by_itself(make_billing: MakeBilling) -> None:
    billing = make_billing("alter table billing_usage_counters alter usage_count type integer")
    for _ in range(2):
        billing.add_event("a", 2**31 - 1)
    billing.add_event("b", 1)

    outcome = reconcile(billing.url)

    assert (outcome.repaired, outcome.failed) == (1, 1)
    assert billing.counters() == {"b": 1}


def test_names_of_type_varchar_are_served(make_billing: MakeBilling) -> None:
    columns = ("gateway_name", "gateway_customer_id", "usage_type")
    billing = make_billing(
        "".join(
            f"alter table {table} alter {column} type varchar(80);"
            for table in ("billing_usage_events", "billing_usage_counters")
            for column in columns
        )
    )
    billing.add_event("a", 3)

    reconcile(billing.url)

    assert billing.counters() == {"a": 3}


def test_a_customer_who_is_deleted_with_everything_of_theirs_is_no_drift(make_billing: MakeBilling) -> None:
    billing = make_billing(
        """
        create table billing_customers (id text primary key);
        insert into billing_customers values ('a'), ('b');
        alter table billing_usage_events
            add foreign key (gateway_customer_id) references billing_customers on delete cascade;
        alter table billing_usage_counters
            add foreign key (gateway_customer_id) references billing_customers on delete cascade;
        """
    )
    for customer in ("a", "b"):
        billing.add_event(customer, 3)
    run = new_run(billing.url)
    run.compare()
    billing.query("delete from billing_customers where id = 'b'")

    run.repair()

    assert billing.counters() == {"a": 3}
    assert mismatch_count(billing.url) == 0


def test_more_columns_of_the_application_are_left_to_their_defaults(make_billing: MakeBilling) -> None:
    billing = make_billing(
        """
        alter table billing_usage_counters add tenant text not null default 'main', add version int not null default 1;
        alter table billing_usage_events add region text not null default 'eu';
        """
    )
    billing.add_event("a", 3)
    billing.add_counter("b", 3, tenant="other", version=7)

    reconcile(billing.url)

    assert [
        tuple(row)
        for row in billing.query(
            "select gateway_customer_id, usage_count, tenant, version from billing_usage_counters order by 1"
        )
    ] == [("a", 3, "main", 1), ("b", 0, "other", 7)]


def test_a_unique_key_of_counters_on_fewer_columns_serves_as_well(make_billing: MakeBilling) -> None:
    billing = make_billing(
        """
        alter table billing_usage_counters
            drop constraint billing_usage_counters_gateway_name_gateway_customer_id_usa_key;
        alter table billing_usage_counters add unique (gateway_name, gateway_customer_id, usage_type, period_start);
        """
    )
    billing.add_event("a", 3)
    billing.add_event("b", 3)
    billing.add_counter("b", 9)

    outcome = reconcile(billing.url)

    assert outcome.failed == 0
    assert billing.counters() == {"a": 3, "b": 3}


def test_counters_whose_ids_repeat_are_each_repaired_to_their_own_sum(make_billing: MakeBilling) -> None:
    billing = make_billing("alter table billing_usage_counters drop constraint billing_usage_counters_pkey")
    same = uuid.uuid4()
    for customer, used in (("a", 3), ("b", 5)):
        billing.add_event(customer, used)
        billing.add_counter(customer, 9, id=same)

    reconcile(billing.url)

    assert billing.counters() == {"a": 3, "b": 5}


def test_tables_in_another_schema_are_found_through_the_search_path(
    make_billing: MakeBilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    billing = make_billing(
        """
        create schema app;
        alter table billing_usage_events set schema app;
        alter table billing_usage_counters set schema app;
        alter table billing_subscriptions set schema app;
        set search_path = app, public;
        """
    )
    billing.connection.execute(
        "do $$ begin execute format('alter database %I set search_path = app, public', current_database()); end $$"
    )
    monkeypatch.setenv("DATABASE_URL", billing.url)
    billing.add_event("a", 3)

    assert run_assets().success
    assert billing.counters() == {"a": 3}


def test_without_subscriptions_limits_are_unknown_and_the_rest_works(
    make_billing: MakeBilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    billing = make_billing("drop table billing_subscriptions")
    monkeypatch.setenv("DATABASE_URL", billing.url)
    billing.add_event("a", 60)
    billing.add_counter("a", 3)

    result = run_assets()

    assert result.success
    limits = result.check("quota_limits_are_known")
    assert (limits.passed, limits.severity.value) == (False, "WARN")
    assert billing.ledger("usage_count_after, usage_limit, over_quota_transition") == [(60, None, None)]


def test_a_session_in_another_time_zone_and_date_style_changes_nothing(make_billing: MakeBilling) -> None:
    billing = make_billing(
        """
        do $$ begin
            execute format('alter database %I set timezone = ''Pacific/Kiritimati''', current_database());
            execute format('alter database %I set datestyle = ''German, DMY''', current_database());
            execute format('alter database %I set default_transaction_isolation = serializable', current_database());
        end $$
        """
    )
    billing.add_event("a", 3)
    billing.add_event("june", 3, period=JUNE)

    run = new_run(billing.url)
    assert [cell.partition for cell in run.compare().cells] == ["2025-05"]
    run.repair()

    assert billing.counters() == {"a": 3}
    assert billing.counters(period=MAY) == {"a": 3}
