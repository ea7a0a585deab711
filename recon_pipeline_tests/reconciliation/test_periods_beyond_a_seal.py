"""A period that had not ended when its month was sealed, such as that of an annual plan, follows the log as before."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recon_pipeline.store.sums import quality
from recon_pipeline_tests.reconciliation.archives import archive
from recon_pipeline_tests.reconciliation.billing import MAY, Billing, Period, customers
from recon_pipeline_tests.reconciliation.conftest import MakeBilling
from recon_pipeline_tests.reconciliation.product import new_run
from recon_pipeline_tests.reconciliation.seals import corrections_of, reopen, seal, verify
from recon_pipeline_tests.support.assets import run_assets

EVERY_MODE = pytest.mark.parametrize("mode", ["incremental", "full"])
ONE, OTHER = customers(2)
YEARS: Period = (MAY[0], datetime(2125, 5, 1, tzinfo=UTC))
WITHOUT_END = """
    alter table billing_usage_counters drop constraint
        billing_usage_counters_gateway_name_gateway_customer_id_usa_key;
    alter table billing_usage_counters add unique (gateway_name, gateway_customer_id, usage_type, period_start)
"""
YEARS_CUT: Period = (YEARS[0], YEARS[1] - timedelta(microseconds=1))


@pytest.fixture
def sealed(make_billing_in_mode: MakeBilling, mode: str) -> Billing:
    """May is sealed; nobody has used anything yet in a period that begins in it and has not ended."""
    billing = make_billing_in_mode(mode)
    for customer in (ONE, OTHER):
        billing.record(customer, 10)
    assert run_assets().record.outcome == "clean"
    seal(billing)
    assert run_assets().record.outcome == "clean"
    return billing


@EVERY_MODE
def test_what_is_used_in_a_period_that_goes_on_keeps_its_counter_and_is_no_correction(sealed: Billing) -> None:
    sealed.record("yearly", 5, period=YEARS)
    for _ in range(2):
        run = run_assets()
        assert (run.record.outcome, run.record.drift_count) == ("clean", 0)
        assert run.check("sealed_months_hold").passed
    assert sealed.counter("yearly", period=YEARS) == 5
    assert (sealed.ledger(), corrections_of(sealed)) == ([], {})
    assert verify(sealed).misfit is None


@EVERY_MODE
@pytest.mark.parametrize("counted", [None, 3, 9])
def test_its_counter_is_repaired_to_what_the_log_adds_up_to_whatever_came_later(
    sealed: Billing, counted: int | None
) -> None:
    sealed.add_event("yearly", 5, period=YEARS)
    if counted is not None:
        sealed.add_counter("yearly", counted, period=YEARS)
    assert run_assets().record.rows_repaired == 1
    sealed.record("yearly", 2, period=YEARS)
    sealed.query("update billing_usage_counters set usage_count = 1 where gateway_customer_id = 'yearly'")
    assert run_assets().record.rows_repaired == 1
    assert sealed.counter("yearly", period=YEARS) == 7
    assert sealed.counters() == {ONE: 10, OTHER: 10}


@EVERY_MODE
def test_beside_it_a_sealed_counter_is_repaired_to_its_seal_in_the_same_run(sealed: Billing) -> None:
    sealed.record(ONE, 4)
    sealed.add_event(ONE, 5, period=YEARS)
    record = run_assets().record
    assert (record.outcome, record.rows_repaired) == ("clean", 2)
    assert (sealed.counter(ONE), sealed.counter(ONE, period=YEARS)) == (10, 5)
    assert list(corrections_of(sealed)) == [ONE]


@EVERY_MODE
def test_a_counter_of_it_that_is_deleted_comes_back(sealed: Billing) -> None:
    sealed.record("yearly", 5, period=YEARS)
    assert run_assets().record.outcome == "clean"
    sealed.query("delete from billing_usage_counters where gateway_customer_id = 'yearly'")
    assert run_assets().record.rows_repaired == 1
    assert sealed.counter("yearly", period=YEARS) == 5


@EVERY_MODE
def test_what_leaves_the_log_of_it_is_asked_about_as_anywhere(sealed: Billing) -> None:
    sealed.record("yearly", 5, period=YEARS)
    assert run_assets().record.outcome == "clean"
    sealed.query("delete from billing_usage_events where gateway_customer_id = 'yearly'")
    assert run_assets().record.doubtful_count == 1
    assert sealed.counter("yearly", period=YEARS) == 5


@EVERY_MODE
def test_it_is_doubtful_if_it_is_written_in_two_ways(sealed: Billing) -> None:
    sealed.add_event("yearly", 5, period=YEARS)
    sealed.add_event("yearly", 2, period=YEARS_CUT)
    sealed.add_counter("yearly", 7, period=YEARS)
    assert run_assets().record.rows_repaired == 0
    assert (sealed.counter("yearly", period=YEARS), sealed.counter("yearly", period=YEARS_CUT)) == (7, None)


@EVERY_MODE
def test_odd_events_of_it_are_shown(sealed: Billing) -> None:
    sealed.query("alter table billing_usage_events alter quantity drop not null")
    sealed.record("yearly", 5, period=YEARS)
    sealed.add_event("yearly", None, period=YEARS)
    for _ in range(2):
        run = new_run(sealed.url)
        with run.decision("REPEATABLE READ") as (connection, tables):
            known = quality.known(connection, run.question, tables)
            found = quality.measure(connection, run.question, tables, known, since=None)
        assert (found.quality.events_scanned, found.quality.invalid_count, len(found.invalid)) == (2, 1, 1)
        run_assets()


@EVERY_MODE
def test_once_it_has_ended_it_is_sealed_with_its_month_anew(sealed: Billing) -> None:
    ends = datetime.now(UTC) + timedelta(seconds=4)
    period: Period = (MAY[0], ends)
    sealed.record("long", 5, period=period)
    assert run_assets().record.outcome == "clean"
    reopen(sealed)
    sealed.query("select pg_sleep(greatest(0, extract(epoch from %s - clock_timestamp())) + 0.1)", ends)
    assert run_assets().record.outcome == "clean"
    seal(sealed)
    sealed.record("long", 1, period=period)
    assert run_assets().record.rows_repaired == 1
    assert sealed.counter("long", period=period) == 5


def test_it_is_not_archived_and_the_statement_for_the_owner_leaves_its_events(
    make_billing_in_mode: MakeBilling, tmp_path: Path
) -> None:
    billing = make_billing_in_mode("incremental")
    billing.record(ONE, 10)
    assert run_assets().record.outcome == "clean"
    seal(billing)
    billing.record("yearly", 5, period=YEARS)
    assert run_assets().record.outcome == "clean"

    (statement,) = archive(billing, tmp_path).statements
    billing.connection.execute(statement.encode())

    assert billing.query("select gateway_customer_id from billing_usage_events") == [("yearly",)]
    for _ in range(2):
        assert run_assets().record.outcome == "clean"
    assert (billing.counter(ONE), billing.counter("yearly", period=YEARS)) == (10, 5)
    assert corrections_of(billing) == {}


@EVERY_MODE
@pytest.mark.parametrize("is_closed", [False, True], ids=["open", "sealed"])
@pytest.mark.parametrize("end", [MAY[1], YEARS[1]], ids=["of the sealed period", "of the one that goes on"])
def test_one_counter_for_two_periods_is_left_alone_as_in_an_open_month(
    make_billing_in_mode: MakeBilling, mode: str, is_closed: bool, end: datetime
) -> None:
    """Counters are unique without the end of their period, so what is used in both is counted in one row."""
    billing = make_billing_in_mode(mode, WITHOUT_END)
    for customer in (ONE, OTHER):
        billing.add_event(customer, 10)
        billing.add_counter(customer, 10)
    assert run_assets().record.outcome == "clean"
    if is_closed:
        seal(billing)
        assert run_assets().record.outcome == "clean"
    billing.add_event(ONE, 5, period=YEARS)
    billing.set_counter(ONE, 15)
    billing.query("update billing_usage_counters set period_end = %s where gateway_customer_id = %s", end, ONE)
    billing.set_counter(OTHER, 3)
    for _ in range(2):
        ended = run_assets()
        assert (ended.record.outcome, ended.record.doubtful_count) == ("not_clean", 2), ended.record
        assert not ended.check("periods_are_written_in_one_way").passed
    assert billing.query("select usage_count, period_end from billing_usage_counters order by 1") == [
        (10, MAY[1]), (15, end),
    ]  # fmt: skip
    if is_closed:
        billing.query("delete from billing_usage_events where period_end = %s", YEARS[1])
        billing.query("update billing_usage_counters set period_end = %s where gateway_customer_id = %s", MAY[1], ONE)
        assert run_assets().record.rows_repaired == 1
        assert billing.counters() == {ONE: 10, OTHER: 10}


@EVERY_MODE
def test_a_usage_of_the_other_period_that_comes_under_the_repair_is_not_taken_from_the_one_counter(
    make_billing_in_mode: MakeBilling, mode: str
) -> None:
    billing = make_billing_in_mode(mode, WITHOUT_END)
    billing.add_event(ONE, 10)
    billing.add_counter(ONE, 10)
    assert run_assets().record.outcome == "clean"
    seal(billing)
    assert run_assets().record.outcome == "clean"
    billing.add_event(ONE, 4)
    billing.set_counter(ONE, 14)
    run = new_run(billing.url)
    run.compare()
    billing.add_event(ONE, 5, period=YEARS)
    billing.set_counter(ONE, 19)
    outcome = run.repair()
    assert (outcome.repaired, outcome.doubtful) == (0, 1)
    assert billing.counter(ONE) == 19
