"""What names an event: logs whose owner declared another key than gateway_name and request_id, and logs without a key.

One call to an API is metered in two ways, a request id is unique for each customer, or a partitioned log had to add its
partition key: the second event is no repetition, and its right counter was once set to 0 as if it were.
"""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest

from recon_pipeline.core.event_identity import EventIdentity, parse_event_identity
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.counters import chunks
from recon_pipeline_tests.reconciliation.billing import GATEWAY, JUNE, MAY, USAGE, Billing
from recon_pipeline_tests.reconciliation.conftest import MakeBilling, install_increments
from recon_pipeline_tests.reconciliation.product import Run, new_run
from recon_pipeline_tests.reconciliation.test_table_shapes import FIRST, INDEXED, NO_UNIQUE, PARTITIONED, SECOND
from recon_pipeline_tests.support.assets import AssetsRun, run_assets

SMS = "sms_messages"
UNIQUE = NO_UNIQUE + "alter table billing_usage_events add unique ({});"
BY_USAGE_TYPE = UNIQUE.format("gateway_name, usage_type, request_id")
BY_TIME = (
    PARTITIONED.replace("by range (created_at)", "by range (event_timestamp)")
    + "alter table billing_usage_events add unique (gateway_name, request_id, event_timestamp);"
)
WIDER_KEYS = {
    "usage_type": BY_USAGE_TYPE,
    "gateway_customer_id": UNIQUE.format("gateway_name, gateway_customer_id, request_id"),
    "period_start": UNIQUE.format("gateway_name, request_id, period_start"),
    "event_timestamp": BY_TIME,
}
OF_EACH_KEY = pytest.mark.parametrize("column", WIDER_KEYS)
IN_EITHER_MODE = pytest.mark.parametrize("full", [False, True], ids=["incremental", "full"])
Meter = Callable[[str], Billing]


@pytest.fixture
def meter(make_billing: MakeBilling, monkeypatch: pytest.MonkeyPatch) -> Meter:
    """Gives a log of a shape for the job, which reconciles two usage types."""

    def make(shape: str) -> Billing:
        billing = make_billing(shape)
        monkeypatch.setenv("DATABASE_URL", billing.url)
        monkeypatch.setenv("RECON_SCOPE", f"{GATEWAY}:{USAGE},{GATEWAY}:{SMS}")
        return billing

    return make


def meter_twice(billing: Billing, column: str) -> None:
    """Two events with one request id that differ in this column, as the log's key allows, both counted."""
    billing.add_event("a", 3, request_id="r", event_timestamp=FIRST)
    match column:
        case "usage_type":
            billing.add_event("a", 5, request_id="r", event_timestamp=FIRST, usage_type=SMS)
            billing.add_counter("a", 5, usage_type=SMS)
        case "gateway_customer_id":
            billing.add_event("b", 5, request_id="r", event_timestamp=FIRST)
            billing.add_counter("b", 5)
        case "period_start":
            billing.add_event("a", 5, request_id="r", event_timestamp=FIRST, period=JUNE)
            billing.add_counter("a", 5, period=JUNE)
        case _:
            billing.add_event("a", 5, request_id="r", event_timestamp=SECOND)
    billing.add_counter("a", 8 if column == "event_timestamp" else 3)


def counts(billing: Billing) -> list[int]:
    """All counters, the lowest first."""
    return [count for (count,) in billing.query("select usage_count from billing_usage_counters order by 1")]


def sampled(result: Any) -> list[dict[str, Any]]:
    records = result.check("event_identity_is_known").metadata["sample"].value.records
    return [dict(record.data) for record in records]


def identity_check(result: AssetsRun) -> tuple[bool, str, str]:
    """Whether the check passed, how severe it is, and what it says."""
    check = result.check("event_identity_is_known")
    return check.passed, check.severity.value, check.description or ""


@IN_EITHER_MODE
@OF_EACH_KEY
def test_right_counters_stay_where_the_log_declares_a_wider_key_and_the_two_ways_to_declare_are_named(
    meter: Meter, column: str, full: bool
) -> None:
    billing = meter(WIDER_KEYS[column] + INDEXED)
    meter_twice(billing, column)
    before = counts(billing)

    result = run_assets(last="2025-06", full=full)

    assert counts(billing) == before
    assert billing.ledger() == []
    passed, severity, said = identity_check(result)
    assert (passed, severity) == (False, "ERROR")
    assert "1 drifted counters were left as they are: the log does not say what is one event." in said
    assert f"set RECON_EVENT_IDENTITY=gateway_name,request_id,{column}, then recon init" in said
    assert "unique key on (gateway_name, request_id)" in said or (
        "create unique index concurrently on billing_usage_events (gateway_name, request_id);" in said
    )
    assert sampled(result)[0]["request_id"] == "r"
    (drift,) = billing.query("select outcome, error from recon.counter_drift")
    assert drift.outcome == "doubtful"
    assert "declares by a unique key that they are two" in drift.error
    assert billing.value("select reason from recon.open_key") == "doubtful"


@IN_EITHER_MODE
@OF_EACH_KEY
def test_once_the_wider_key_is_declared_each_of_its_events_counts(
    meter: Meter, monkeypatch: pytest.MonkeyPatch, column: str, full: bool
) -> None:
    billing = meter(WIDER_KEYS[column] + INDEXED)
    meter_twice(billing, column)
    before = counts(billing)
    run_assets(last="2025-06", full=full)
    monkeypatch.setenv("RECON_EVENT_IDENTITY", f"gateway_name,request_id,{column}")

    result = run_assets(last="2025-06", full=full)

    assert identity_check(result) == (True, "WARN", "")
    assert result.check("counters_match_event_sums").passed, result.check("counters_match_event_sums").description
    assert (counts(billing), billing.ledger()) == (before, [])
    billing.query("update billing_usage_counters set usage_count = 0")
    run_assets(last="2025-06", full=full)
    assert counts(billing) == before


def test_a_wider_key_by_itself_is_a_warning_as_long_as_no_counter_hangs_on_it(meter: Meter) -> None:
    billing = meter(BY_USAGE_TYPE + INDEXED)
    billing.add_event("a", 3)
    billing.add_counter("a", 1)

    result = run_assets()

    assert billing.counters() == {"a": 3}, "none of its events has a twin"
    passed, severity, said = identity_check(result)
    assert (passed, severity) == (False, "WARN")
    assert said == (
        "billing_usage_events has a unique key on gateway_name, request_id, usage_type, which admits several events "
        "with the same gateway_name, request_id, and RECON_EVENT_IDENTITY=gateway_name,request_id says that these are "
        "one event. If they are several events: set RECON_EVENT_IDENTITY=gateway_name,request_id,usage_type, then "
        "recon init. If they are one: create unique index concurrently on billing_usage_events "
        "(gateway_name, request_id);"
    )


def test_an_identity_that_does_not_cover_the_declared_key_is_no_better_than_the_default(meter: Meter) -> None:
    billing = meter(BY_USAGE_TYPE + INDEXED)

    for columns, is_wider in ((("usage_type",), False), (("gateway_customer_id",), True), (("period_start",), True)):
        identity = parse_event_identity(",".join(("request_id", "gateway_name", *columns)))
        tables = new_run(billing.url, event_identity=identity).tables()
        assert (tables.wider_key is not None) == is_wider
        assert tables.refuses_repetitions != is_wider


@pytest.mark.parametrize(
    "key",
    [
        "id, gateway_name, request_id",  # says nothing: with its own id every row is unique
        "gateway_customer_id, usage_type, event_timestamp",  # not of request ids
    ],
)
def test_a_key_that_does_not_speak_of_request_ids_declares_nothing(meter: Meter, key: str) -> None:
    billing = meter(UNIQUE.format(key) + INDEXED)

    assert new_run(billing.url).tables().wider_key is None


def test_a_wider_key_of_columns_that_no_setting_can_name_is_said_to_be_one(meter: Meter) -> None:
    billing = meter(
        "alter table billing_usage_events add region text not null default 'eu';" + UNIQUE.format("region, request_id")
    )
    wider = new_run(billing.url).tables().wider_key

    assert wider is not None
    assert wider.columns == ("request_id", "region")
    assert "No setting can name an event by this key." in wider.ways_to_declare


@IN_EITHER_MODE
def test_a_key_on_an_expression_declares_a_wider_key_and_the_right_counter_stays(meter: Meter, full: bool) -> None:
    """A request id may come again on another day; the second event was taken for a repetition of the first."""
    columns = "gateway_name, request_id, date(event_timestamp at time zone 'UTC')"
    by_day = f"create unique index on billing_usage_events ({columns});"
    billing = meter(NO_UNIQUE + INDEXED + by_day)
    meter_twice(billing, "event_timestamp")

    result = run_assets(full=full)

    assert (counts(billing), billing.ledger()) == ([8], [])
    passed, _, said = identity_check(result)
    assert not passed
    assert "No setting can name an event by this key." in said


@IN_EITHER_MODE
@pytest.mark.parametrize("shape", [NO_UNIQUE + INDEXED, NO_UNIQUE, PARTITIONED, PARTITIONED + INDEXED])
def test_nothing_is_decided_where_two_keys_share_an_event_and_no_key_declares_what_it_is(
    meter: Meter, shape: str, full: bool
) -> None:
    billing = meter(shape)
    billing.add_event("a", 3, request_id="r", created_at=FIRST)
    billing.add_event("b", 5, request_id="r", created_at=SECOND)
    billing.add_event("c", 7, created_at=FIRST)
    billing.add_counter("b", 5)

    result = run_assets(full=full)

    assert billing.counters() == {"b": 5, "c": 7}, "neither zeroed nor created; c has no part in it"
    passed, severity, said = identity_check(result)
    assert (passed, severity) == (False, "ERROR")
    assert "2 drifted counters were left as they are" in said
    assert "Events of different keys have the same gateway_name, request_id" in said
    assert "like RECON_EVENT_IDENTITY=gateway_name,request_id,gateway_customer_id, then recon init." in said
    rows = sampled(result)
    assert {(row["gateway_customer_id"], row["other_customer"], row["other_is_of"]) for row in rows} == {
        ("a", "b", "another key"),
        ("b", "a", "another key"),
    }
    billing.query("delete from billing_usage_events where gateway_customer_id = 'b'")
    billing.query("update billing_usage_counters set usage_count = 0 where gateway_customer_id = 'b'")
    assert identity_check(run_assets(full=full))[0]
    assert billing.counters() == {"a": 3, "b": 0, "c": 7}


@IN_EITHER_MODE
def test_a_repeated_event_of_one_key_counts_once_also_if_its_quantity_differs_which_is_shown(
    meter: Meter, full: bool
) -> None:
    billing = meter(NO_UNIQUE + INDEXED)
    billing.add_event("a", 3, request_id="r")
    billing.add_event("a", 5, request_id="r")
    billing.add_event("a", 1)

    result = run_assets(full=full)

    assert billing.counters() == {"a": 4}
    assert identity_check(result) == (
        True,
        "WARN",
        "Events that repeat another one have another quantity than it; the first to arrive counts.",
    )
    (row,) = sampled(result)
    assert {row["quantity"], row["other_quantity"]} == {"3", "5"}
    assert row["other_is_of"] == "the same key, with another quantity"


@IN_EITHER_MODE
def test_a_placeholder_of_no_units_does_not_stand_for_the_usage_that_follows_it(meter: Meter, full: bool) -> None:
    billing = meter(
        NO_UNIQUE + INDEXED + ";alter table billing_usage_events drop constraint billing_usage_events_quantity_check"
    )
    billing.add_event("a", 0, request_id="r")
    billing.add_event("a", 500, request_id="r")
    billing.add_counter("a", 500)

    result = run_assets(full=full)

    assert billing.counters() == {"a": 500}
    passed, severity, said = identity_check(result)
    assert (passed, severity) == (False, "ERROR"), said
    assert sampled(result)[0]["other_is_of"] == "the same key, one of the two of no units"


def test_another_identity_sums_everything_anew_and_says_so(make_incremental_billing: MakeBilling) -> None:
    billing = make_incremental_billing(NO_UNIQUE + INDEXED)
    meter_twice(billing, "usage_type")
    scope = (MeteredUsage(GATEWAY, USAGE), MeteredUsage(GATEWAY, SMS))

    def advanced(*columns: str) -> tuple[str | None, list[int]]:
        identity = EventIdentity(("gateway_name", "request_id", *columns))
        done = new_run(billing.url, scope=scope, event_identity=identity).aggregate()
        assert done is not None
        sums = billing.query("select usage_count from recon.usage_aggregate where usage_count > 0 order by 1")
        return done.rebuilt_because, [row.usage_count for row in sums]

    default, with_type = "gateway_name, request_id", "gateway_name, request_id, usage_type"
    assert advanced() == (None, [3])
    because = "RECON_EVENT_IDENTITY was changed from {} to {}"
    assert advanced("usage_type") == (because.format(default, with_type), [3, 5])
    assert advanced("usage_type") == (None, [3, 5])
    assert advanced() == (because.format(with_type, default), [3])
    assert billing.value("select sum(events_left) from recon.open_key") == 1, (
        "what no longer counts waits for an approval"
    )


def test_another_identity_may_need_another_trigger_and_is_not_read_in_increments_before_it_has_it(
    make_incremental_billing: MakeBilling,
) -> None:
    billing = make_incremental_billing(BY_USAGE_TYPE + INDEXED)
    assert new_run(billing.url).aggregate() is not None, "prepared for request ids"
    identity = parse_event_identity("gateway_name,request_id,usage_type")

    assert new_run(billing.url, event_identity=identity).aggregate() is None
    install_increments(billing.url, identity)
    assert new_run(billing.url, event_identity=identity).aggregate() is not None
    assert new_run(billing.url).aggregate() is None, "back to request ids, of which the triggers know nothing now"


# An event that comes after the comparison.


def compared_run(billing: Billing) -> Run:
    run = new_run(billing.url)
    run.compare()
    return run


ADMITTING = pytest.mark.parametrize("shape", [NO_UNIQUE + INDEXED, BY_USAGE_TYPE + INDEXED, PARTITIONED + INDEXED])


@ADMITTING
@pytest.mark.parametrize("moment", ["lock_free_counters", "repair_locked_counters"])
@pytest.mark.parametrize("counted", [None, 1])
def test_a_twin_that_comes_after_the_comparison_leaves_the_counter_as_it_is(
    make_billing: MakeBilling, shape: str, moment: str, counted: int | None
) -> None:
    billing = make_billing(shape)
    billing.add_event("a", 3, request_id="r", created_at=FIRST)
    billing.add_event("c", 7)
    if counted is not None:
        billing.add_counter("a", counted)
    run = compared_run(billing)

    outcome = run.repair(
        before={moment: lambda: billing.add_event("a", 5, request_id="r", usage_type=SMS, created_at=SECOND)}
    )

    assert (outcome.repaired, outcome.doubtful) == (1, 1)
    assert billing.counters() == ({"c": 7} if counted is None else {"a": counted, "c": 7})
    assert [row[0] for row in billing.ledger()] == ["c"]
    assert run.verify().doubtful_count == 1


@ADMITTING
def test_a_twin_that_comes_while_a_heavy_key_is_summed_leaves_its_counter_as_it_is(
    make_incremental_billing: MakeBilling, shape: str
) -> None:
    billing = make_incremental_billing(shape)
    billing.add_counter("whale", 5)
    billing.query(
        "insert into billing_usage_events (gateway_name, gateway_customer_id, usage_type, request_id, quantity, "
        "period_start, period_end, event_timestamp) "
        "select 'stripe', 'whale', 'remote_commands', 'w-' || n, 1, %s, %s, %s from generate_series(1, 100000) as n",
        *MAY, FIRST,
    )  # fmt: skip
    billing.query("analyze billing_usage_events")
    run = compared_run(billing)
    summed = chunks.Repairer._sum_final_events

    def meanwhile(self: chunks.Repairer, *arguments: Any) -> None:
        summed(self, *arguments)
        assert self.final is not None
        self.connection.exec_driver_sql("select 1")
        billing.add_event("whale", 5, request_id="w-77", usage_type=SMS, event_timestamp=FIRST)

    with (
        patch.object(chunks, "CHUNK_STATEMENT_TIMEOUT_MS", 60),
        patch.object(chunks.Repairer, "_sum_final_events", meanwhile),
    ):
        outcome = run.repair()

    assert (outcome.repaired, outcome.doubtful, outcome.failed) == (0, 1, 0)
    assert billing.counter("whale") == 5


def test_a_log_that_refuses_repetitions_is_asked_for_no_twins(billing: Billing) -> None:
    billing.add_event("a", 3)
    run = compared_run(billing)
    with patch("recon_pipeline.store.counters.doubt_of_identity._sharing", side_effect=AssertionError):
        assert run.repair().repaired == 1
