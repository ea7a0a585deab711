"""Events that were counted and are gone: no counter is lowered for them until a person approves or declares it."""

from typing import Any

import pytest

from recon_pipeline.store.counters import usage_snapshot, verify
from recon_pipeline.store.records.runs import RunRecord
from recon_pipeline_tests.reconciliation.billing import JUNE, MAY, Billing, customers
from recon_pipeline_tests.reconciliation.conftest import MakeBilling, install_increments
from recon_pipeline_tests.support.assets import compare_assets, run_assets
from recon_pipeline_tests.support.logs import partitioned_log

EVERY_MODE = pytest.mark.parametrize("mode", ["incremental", "full"])
CUSTOMERS = customers(6)
BY_MONTH = f"""
    {partitioned_log("period_start")}
    create index on billing_usage_events (request_id);
    create index on billing_usage_events (gateway_customer_id);
    create table events_may partition of billing_usage_events
        for values from ('2025-05-01 00:00Z') to ('2025-06-01 00:00Z');
    create table events_june partition of billing_usage_events
        for values from ('2025-06-01 00:00Z') to ('2025-07-01 00:00Z');
"""
SHRINKS = {
    "a retention job deletes the month": "delete from billing_usage_events where period_start < '2025-06-01 00:00Z'",
    "a partition is truncated": "truncate events_may",
    "a partition is detached": "alter table billing_usage_events detach partition events_may",
    "a partition is dropped": "drop table events_may",
    "a partition is detached and its events are deleted before": """
        delete from events_may; alter table billing_usage_events detach partition events_may
    """,
}


def run(**config: Any) -> RunRecord:
    return run_assets(first="2025-05", last="2025-06", **config).record


def fill(billing: Billing) -> Billing:
    """Everyone used 10 in May and 7 in June, which a run has counted."""
    for customer in CUSTOMERS:
        for period, quantity in ((MAY, 4), (MAY, 6), (JUNE, 7)):
            billing.add_event(customer, quantity, period=period)
        billing.add_counter(customer, 10)
        billing.add_counter(customer, 7, period=JUNE)
    assert run().outcome == "clean"
    return billing


@pytest.fixture
def filled(make_billing_in_mode: MakeBilling, mode: str) -> Billing:
    return fill(make_billing_in_mode(mode))


@pytest.fixture
def by_month(make_billing_in_mode: MakeBilling, mode: str) -> Billing:
    billing = fill(make_billing_in_mode(mode, BY_MONTH))
    assert billing.query("select distinct mode from recon.reconciliation_run") == [(mode,)]
    return billing


def left(record: RunRecord) -> list[Any]:
    months = record.events_left_the_log or ()
    return [(month["partition"], month["keys"], month["events"], month["units"]) for month in months]


@EVERY_MODE
@pytest.mark.parametrize("shrink", SHRINKS.values(), ids=SHRINKS)
def test_no_counter_is_lowered_because_events_left_the_log_and_all_others_are_repaired(
    by_month: Billing, shrink: str
) -> None:
    by_month.connection.execute(shrink.encode())
    by_month.add_event("customer_0000", 5, period=JUNE)
    by_month.query(
        "update billing_usage_counters set usage_count = 9 where gateway_customer_id = 'customer_0001' "
        "and period_start >= '2025-06-01 00:00Z'"
    )

    for _ in range(2):
        result = run()
        assert (result.outcome, left(result)) == ("not_clean", [("2025-05", 6, 12, "60")]), result.error
        assert by_month.counters() == dict.fromkeys(CUSTOMERS, 10)
        assert by_month.counters(period=JUNE) == dict.fromkeys(CUSTOMERS, 7) | {"customer_0000": 12}


@EVERY_MODE
def test_credits_that_left_raise_no_counter_and_a_repeated_one_counts_once(by_month: Billing) -> None:
    """Also where nobody has said that these are credits: the log does not say it either once they are gone."""
    for table, column in (("events", "quantity"), ("counters", "usage_count")):
        name = f"billing_usage_{table}"
        by_month.query(f"alter table {name} drop constraint if exists {name}_{column}_check")
    for _ in range(2):
        by_month.add_event("customer_0000", -30, request_id="credit")
    by_month.set_counter("customer_0000", -20)
    assert run().outcome == "clean"
    assert by_month.value("select sum(credit_units) from recon.usage_aggregate") == -30
    by_month.query("delete from billing_usage_events where quantity < 0")

    for _ in range(2):
        result = run()
        assert (result.outcome, left(result)) == ("not_clean", [("2025-05", 1, 1, "30")]), result.error
        assert by_month.counter("customer_0000") == -20


@EVERY_MODE
@pytest.mark.parametrize(
    ("change", "events", "units"),
    [
        ("delete from billing_usage_events where quantity = 4", 6, "24"),
        ("update billing_usage_events set quantity = 1 where quantity = 4", 0, "18"),
        ("update billing_usage_events set gateway_customer_id = 'other' where quantity = 4", 6, "24"),
        ("delete from billing_usage_events where period_start < '2025-06-01 00:00Z'", 12, "60"),
    ],
)
def test_an_approval_lowers_what_the_latest_run_has_shown_once(
    filled: Billing, change: str, events: int, units: str
) -> None:
    filled.query(change)
    shown = run()
    assert left(shown) == [("2025-05", 6, events, units)]

    approved = run(approve_reason="TICKET-1: a test account")

    sums = filled.event_sums()
    lowered = {customer: sums.get(customer, 0) for customer in CUSTOMERS}
    assert (approved.outcome, left(approved)) == ("clean", []), approved.error
    assert {customer: filled.counters()[customer] for customer in CUSTOMERS} == lowered
    assert filled.query(
        "select distinct approved_reason from recon.reconciliation_run where run_id in (%s, %s)",
        approved.run_id,
        shown.run_id,
    ) == [("TICKET-1: a test account",), (None,)]
    assert run().outcome == "clean"

    filled.query("delete from billing_usage_events where gateway_customer_id = 'customer_0002' and quantity = 7")
    again = run(approve_reason="TICKET-1: a test account")
    assert (again.outcome, filled.counters(period=JUNE)) == ("not_clean", dict.fromkeys(CUSTOMERS, 7)), (
        "nobody was shown this"
    )


@EVERY_MODE
def test_an_approval_that_was_used_lowers_nothing_a_second_time(filled: Billing) -> None:
    """The events are restored, and leave once more before a run has shown it."""
    filled.query("create table kept as select * from billing_usage_events where quantity = 4")
    filled.query("delete from billing_usage_events where quantity = 4")
    shown = run()
    assert run(approve_reason="TICKET-1", approve_run=shown.run_id).outcome == "clean"
    names = "id, gateway_name, gateway_customer_id, usage_type, request_id, quantity, period_start, period_end"
    filled.query(f"insert into billing_usage_events ({names}) select {names} from kept")
    assert (run().outcome, set(filled.counters().values())) == ("clean", {10})
    filled.query("delete from billing_usage_events where quantity = 4")

    again = run(approve_reason="TICKET-1", approve_run=shown.run_id)

    assert (again.outcome, left(again)) == ("not_clean", [("2025-05", 6, 6, "24")]), again.error
    assert set(filled.counters().values()) == {10}


@EVERY_MODE
def test_an_approval_lowers_no_key_of_which_more_has_left_than_was_shown(filled: Billing) -> None:
    filled.query("delete from billing_usage_events where quantity = 4 and gateway_customer_id < 'customer_0002'")
    run()
    filled.query(
        "delete from billing_usage_events where quantity = 6 and gateway_customer_id in "
        "('customer_0001', 'customer_0002')"
    )

    assert run(approve_reason="TICKET-1").outcome == "not_clean"
    assert filled.counters() == dict.fromkeys(CUSTOMERS, 10) | {"customer_0000": 6}
    assert run(approve_reason="TICKET-1, all of it").outcome == "clean"
    assert filled.counters() == dict.fromkeys(CUSTOMERS, 10) | {
        "customer_0000": 6,
        "customer_0001": 0,
        "customer_0002": 4,
    }


@EVERY_MODE
def test_a_dry_run_shows_what_left_and_can_be_approved(filled: Billing) -> None:
    filled.query("delete from billing_usage_events where quantity = 4")

    assert left(compare_assets(first="2025-05", last="2025-06").record) == [("2025-05", 6, 6, "24")]
    assert run(approve_reason="TICKET-1").outcome == "clean"
    assert filled.counters() == dict.fromkeys(CUSTOMERS, 6)


@EVERY_MODE
def test_what_left_the_log_and_was_approved_needs_no_second_approval_for_a_budget(
    filled: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.query("delete from billing_usage_events where period_start < '2025-06-01 00:00Z'")
    monkeypatch.setenv("RECON_MAX_REPAIRS", "2")
    assert run().outcome == "not_clean", "it is not blocked, since nothing would be repaired"

    assert run(approve_reason="TICKET-1").outcome == "clean"
    assert filled.counters() == dict.fromkeys(CUSTOMERS, 0)


@EVERY_MODE
@pytest.mark.parametrize(
    "change",
    [
        "update billing_usage_events set quantity = quantity + 1 where quantity = 4",
        """
        with rolled_up as (delete from billing_usage_events returning *)
        insert into billing_usage_events (
            gateway_name, gateway_customer_id, usage_type, request_id, quantity, period_start, period_end
        )
        select
            gateway_name, gateway_customer_id, usage_type, 'rollup-' || gateway_customer_id || period_start,
            sum(quantity), period_start, period_end
        from rolled_up
        group by gateway_name, gateway_customer_id, usage_type, period_start, period_end
        """,
        """
        with erased as (delete from billing_usage_events where gateway_customer_id < 'customer_0003')
        delete from billing_usage_counters where gateway_customer_id < 'customer_0003'
        """,
    ],
    ids=["an update that raises", "a rollup that keeps the sums", "customers erased with their counters"],
)
def test_what_lowers_no_counter_needs_nothing_and_is_followed_at_once(filled: Billing, change: str) -> None:
    filled.query(change)

    ended = run()

    assert (ended.outcome, left(ended)) == ("clean", []), ended.error
    assert {customer: units for customer, units in filled.counters().items() if units} == filled.event_sums()
    assert filled.value("select count(*) from recon.open_key") == 0
    filled.query("update billing_usage_counters set usage_count = usage_count + 1")
    assert run().outcome == "clean", "what left before the counter matched again says nothing of a later drift"


@EVERY_MODE
def test_events_that_were_restored_need_nothing(filled: Billing) -> None:
    filled.query("create table saved as select * from billing_usage_events where quantity = 4")
    filled.query("delete from billing_usage_events where quantity = 4")
    assert run().outcome == "not_clean"
    columns = "gateway_name, gateway_customer_id, usage_type, request_id, quantity, period_start, period_end"
    filled.query(f"insert into billing_usage_events ({columns}) select {columns} from saved")

    assert run().outcome == "clean"
    assert filled.counters() == dict.fromkeys(CUSTOMERS, 10)
    assert filled.ledger() == []


@EVERY_MODE
def test_as_many_events_a_day_as_are_allowed_are_followed_at_once_and_not_one_more(
    filled: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_MAX_EVENTS_LEFT", "3")
    for number in range(3):
        filled.query(
            "delete from billing_usage_events where quantity = 4 and gateway_customer_id = %s", CUSTOMERS[number]
        )
        assert run().outcome == "clean"
        assert filled.counter(CUSTOMERS[number]) == 6
    filled.query("delete from billing_usage_events where quantity = 4 and gateway_customer_id = %s", CUSTOMERS[3])

    ended = run()
    assert left(ended) == [("2025-05", 1, 1, "4")], ended.error
    assert filled.counter(CUSTOMERS[3]) == 10
    filled.query("update recon.reconciliation_run set started_at = started_at - interval '3 days'")
    assert run().outcome == "clean", "a day later"


@EVERY_MODE
def test_lowering_many_events_of_one_counter_is_more_than_a_few_events_a_day(
    filled: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_MAX_EVENTS_LEFT", "4")
    filled.query(
        "update billing_usage_events set quantity = 1 where quantity <> 7 and gateway_customer_id = %s", CUSTOMERS[0]
    )

    ended = run()

    assert left(ended) == [("2025-05", 1, 0, "8")], ended.error
    assert filled.counter(CUSTOMERS[0]) == 10
    monkeypatch.setenv("RECON_MAX_EVENTS_LEFT", "8")
    assert run().outcome == "clean"
    assert filled.counter(CUSTOMERS[0]) == 2


@EVERY_MODE
def test_a_truncated_log_with_a_single_new_event_lowers_nothing(filled: Billing) -> None:
    filled.query("truncate billing_usage_events")
    filled.record("newcomer", 3, period=JUNE)

    ended = run()

    assert left(ended) == [("2025-05", 6, 12, "60"), ("2025-06", 6, 6, "42")]
    assert filled.counters() == dict.fromkeys(CUSTOMERS, 10)
    assert filled.counters(period=JUNE) == dict.fromkeys(CUSTOMERS, 7) | {"newcomer": 3}


@EVERY_MODE
def test_a_usage_that_is_truly_gone_lowers_no_counter_before_each_was_shown(filled: Billing) -> None:
    filled.add_counter("never summed", 3)
    filled.query("truncate billing_usage_events")
    assert run(approve_reason="we start anew").outcome == "blocked", "nobody was shown that the log is empty"

    shown = run(approve_reason="we start anew")

    assert (shown.outcome, left(shown)) == ("not_clean", [("2025-05", 7, 12, "63"), ("2025-06", 6, 6, "42")])
    assert filled.counters() == dict.fromkeys(CUSTOMERS, 10) | {"never summed": 3}
    assert run().outcome == "blocked", "an approval is for one run"
    assert run(approve_reason="we start anew", approve_run=shown.run_id).outcome == "clean"
    assert set(filled.counters().values()) == {0}
    filled.add_counter("an application that writes elsewhere", 3, period=JUNE)
    assert run(approve_reason="we start anew", approve_run=shown.run_id).outcome == "not_clean"
    assert filled.counter("an application that writes elsewhere", period=JUNE) == 3, "nobody was shown this"


@EVERY_MODE
def test_an_older_approval_says_nothing_of_a_log_that_is_lost_later(filled: Billing) -> None:
    filled.query("delete from billing_usage_events where quantity = 4")
    run()
    assert run(approve_reason="TICKET-1: a test account").outcome == "clean"
    filled.query("truncate billing_usage_events")

    assert run(approve_reason="TICKET-1: a test account").outcome == "blocked"
    assert filled.counters() == dict.fromkeys(CUSTOMERS, 6)


@EVERY_MODE
@pytest.mark.parametrize("question", ["a budget", "a first run"])
def test_the_approval_of_a_blocked_run_takes_nothing_back_that_left_the_log(
    filled: Billing, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    filled.query("delete from billing_usage_events where quantity = 4")
    filled.query("update billing_usage_counters set usage_count = 1 where usage_count = 7")
    if question == "a budget":
        monkeypatch.setenv("RECON_MAX_REPAIRS", "2")
    else:
        filled.query("delete from recon.accepted_usage")
    blocked = run_assets(first="2025-05", last="2025-06")
    assert blocked.record.outcome == "blocked"
    said = blocked.check("events_stay_in_the_log").description or ""
    assert "also if what blocks this run is approved" in said
    assert "--approve" not in said, "it would approve the other question"

    approved = run(approve_reason="INC-1: increments lost")

    assert (approved.outcome, left(approved)) == ("not_clean", [("2025-05", 6, 6, "24")]), approved.error
    assert filled.counters() == dict.fromkeys(CUSTOMERS, 10)
    assert filled.counters(period=JUNE) == dict.fromkeys(CUSTOMERS, 7)
    assert run(approve_reason="TICKET-1: a test account", approve_run=approved.run_id).outcome == "clean"
    assert filled.counters() == dict.fromkeys(CUSTOMERS, 6)


@EVERY_MODE
def test_the_approval_of_a_budget_repairs_no_key_that_drifted_since_in_place_of_one_that_left(
    filled: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    drift = "update billing_usage_counters set usage_count = 1 where usage_count = 7 and gateway_customer_id "
    filled.query("delete from billing_usage_events where quantity = 4")
    monkeypatch.setenv("RECON_MAX_REPAIRS", "2")
    shown = run()
    filled.query(drift + "< 'customer_0003'")
    blocked = run(approve_reason="TICKET-1", approve_run=shown.run_id)
    assert blocked.outcome == "blocked", "the three that drifted were not shown"
    filled.query(drift + ">= 'customer_0003'")

    assert run(approve_reason="TICKET-2", approve_run=blocked.run_id).outcome == "blocked"

    assert filled.counters(period=JUNE) == dict.fromkeys(CUSTOMERS, 1)


@EVERY_MODE
def test_a_lost_usage_is_approved_beside_another_that_a_budget_blocks(
    filled: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_SCOPE", "stripe:remote_commands,stripe:sms_messages")
    for customer in CUSTOMERS:
        filled.add_event(customer, 3, usage_type="sms_messages")
    assert run(approve_reason="a new usage").outcome in ("blocked", "clean")
    assert run(approve_reason="a new usage").outcome == "clean"
    monkeypatch.setenv("RECON_MAX_REPAIRS", "2")
    filled.query("delete from billing_usage_events where usage_type = 'remote_commands'")
    filled.query("update billing_usage_counters set usage_count = 1 where usage_type = 'sms_messages'")

    shown = run()
    for outcome in ("blocked", "not_clean", "clean"):
        asked, shown = shown, run(approve_reason="TICKET-1", approve_run=shown.run_id)
        assert shown.outcome == outcome, (asked.error, shown.error)

    sums = "select distinct usage_type, usage_count from billing_usage_counters order by 1"
    assert filled.query(sums) == [("remote_commands", 0), ("sms_messages", 3)]


@EVERY_MODE
def test_what_left_is_remembered_of_more_keys_than_a_run_looks_up(
    filled: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_snapshot, "MOST_KEYS", 2)
    monkeypatch.setattr(verify, "MOST_KEYS", 2)
    filled.query("delete from billing_usage_events where quantity = 4")

    for _ in range(2):
        assert left(run()) == [("2025-05", 6, 6, "24")]
        assert filled.counters() == dict.fromkeys(CUSTOMERS, 10)


@EVERY_MODE
def test_a_run_over_some_customers_lowers_nothing_either(filled: Billing) -> None:
    filled.query("delete from billing_usage_events where quantity = 4")

    for _ in range(2):
        assert left(run(customers=[CUSTOMERS[0]])) == [("2025-05", 1, 1, "4")]
    assert left(run()) == [("2025-05", 6, 6, "24")]
    assert run(customers=[CUSTOMERS[0]], approve_reason="TICKET-1").outcome == "clean"
    assert filled.counters() == dict.fromkeys(CUSTOMERS, 10) | {CUSTOMERS[0]: 6}
    assert left(run()) == [("2025-05", 5, 5, "20")]


def test_what_left_while_triggers_were_off_is_found_by_an_audit_and_lowers_nothing(
    make_billing_in_mode: MakeBilling,
) -> None:
    billing = fill(make_billing_in_mode("incremental"))
    billing.query("alter table billing_usage_events disable trigger user")
    billing.query("delete from billing_usage_events where quantity = 4")
    billing.query("alter table billing_usage_events enable trigger user")

    for _ in range(2):
        assert left(run(full=True)) == [("2025-05", 6, 6, "24")]
    assert billing.counters() == dict.fromkeys(CUSTOMERS, 10)


@EVERY_MODE
def test_what_left_is_known_after_the_schema_was_upgraded_and_the_mode_changed(filled: Billing, mode: str) -> None:
    """Months with invalid events are summed anew by the upgrade."""
    filled.query("delete from recon.usage_month")
    filled.query("delete from billing_usage_events where quantity = 4")
    if mode == "full":
        install_increments(filled.url)

    for _ in range(2):
        ended = run()
        assert left(ended) == [("2025-05", 6, 6, "24")], ended.error
    assert filled.counters() == dict.fromkeys(CUSTOMERS, 10)
