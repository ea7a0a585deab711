"""The period of a late event, where its file has none: what log and counters know, and no guess that nobody reads."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recon_pipeline.core.event_identity import parse_event_identity
from recon_pipeline.faces.init import prepare
from recon_pipeline.sources import rows
from recon_pipeline.store.backfill.batches import Batch
from recon_pipeline.store.backfill.classification import Classifier
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.backfill.inserting import SPEC, insert_file
from recon_pipeline_tests.reconciliation.billing import MAY, Billing, Period
from recon_pipeline_tests.reconciliation.product import new_run

HEADER = "customer,request,units,at"
PERIODS = "select distinct period_start, period_end from billing_usage_events where gateway_customer_id = %s order by 1"
REASONS = "select array_to_string(reasons, ' & ') from recon.rejected_event where batch_id = %s order by ordinal"


def day(month: int, day: int, year: int = 2025) -> datetime:
    return datetime(year, month, day, tzinfo=UTC)


WITHOUT_UNIQUE_KEY = """
    alter table billing_usage_events drop constraint billing_usage_events_gateway_name_request_id_key;
    create index on billing_usage_events (request_id)
"""
LAST: Period = (day(4, 10), day(5, 10))
CURRENT: Period = (day(5, 10), day(6, 10))
NEXT: Period = (day(6, 10), day(7, 10))
YEAR: Period = (day(1, 15), day(1, 15, 2026))


class Backfill:
    """Backfills rows, and tells what became of them."""

    def __init__(self, billing: Billing, folder: Path) -> None:
        self._billing = billing
        self._path = folder / "audit.csv"

    def __call__(
        self,
        *lines: str,
        header: str = HEADER,
        mapping: Mapping[str, Any] = SPEC,
        months: tuple[str, str] = ("2025-01", "2025-12"),
        identity: str = "gateway_name,request_id",
        dry_run: bool = False,
    ) -> Batch:
        self._path.write_text("\n".join((header, *lines)) + "\n")
        return insert_file(
            self._billing.url,
            str(self._path),
            mapping=mapping,
            months=months,
            event_identity=parse_event_identity(identity),
            dry_run=dry_run,
        )

    def reasons(self, batch: Batch) -> Sequence[str]:
        return [reason for (reason,) in self._billing.query(REASONS, batch.batch_id)]


@pytest.fixture
def backfill(billing: Billing, tmp_path: Path) -> Backfill:
    return Backfill(billing, tmp_path)


def periods(billing: Billing, customer: str) -> Sequence[Period]:
    return [tuple(row) for row in billing.query(PERIODS, customer)]


def outcome(batch: Batch) -> tuple[int, int, int, int]:
    return batch.inserted, batch.duplicate, batch.conflict, batch.rejected


def test_an_event_of_the_period_before_the_last_renewal_gets_that_period(billing: Billing, backfill: Backfill) -> None:
    """It got a calendar month, a key that no application reads."""
    billing.record("a", 5, period=LAST)
    billing.subscribe("a", period=CURRENT)
    assert outcome(backfill("a,r1,2,2025-04-20T00:00:00Z")) == (1, 0, 0, 0)
    assert periods(billing, "a") == [LAST]


@pytest.mark.parametrize("counted", [True, False])
def test_an_event_of_an_annual_plan_gets_the_month_that_its_usage_is_counted_by(
    billing: Billing, backfill: Backfill, counted: bool
) -> None:
    """It got a key of a year. Counters tell; where they are lost, the log does."""
    billing.subscribe("a", period=YEAR)
    billing.record("a", 5, period=MAY)
    if not counted:
        billing.query("delete from billing_usage_counters")
    batch = backfill("a,r1,2,2025-05-20T00:00:00Z", "a,r2,2,2025-07-20T00:00:00Z", "a,r3,2,2025-01-16T00:00:00Z")
    assert outcome(batch) == (1, 0, 0, 2)
    assert periods(billing, "a") == [MAY]
    assert all("is counted by other periods" in reason for reason in backfill.reasons(batch))


def test_the_same_file_again_after_a_renewal_is_all_duplicates(billing: Billing, backfill: Backfill) -> None:
    """The second load put the events elsewhere, and called them conflicts."""
    billing.subscribe("a", period=LAST)
    lines = ["a,r1,2,2025-04-20T00:00:00Z", "b,r2,1,2025-04-30T23:59:59Z", "b,r3,1,2025-05-01T00:00:00Z"]
    assert outcome(backfill(*lines)) == (3, 0, 0, 0)
    before = billing.log_checksum()
    billing.query("update billing_subscriptions set current_period_start = %s, current_period_end = %s", *CURRENT)
    billing.subscribe("b", period=CURRENT)
    assert outcome(backfill(*lines)) == (0, 3, 0, 0)
    # A change of plan in the middle of the period: now counters know another one, too.
    billing.record("a", 1, period=(day(4, 15), day(5, 15)))
    assert outcome(backfill(*lines)) == (0, 3, 0, 0)
    assert billing.log_checksum()[0] == before[0] + 1


@pytest.mark.parametrize(("named_by", "reads_whole_log"), [("period_start", False), ("period_end", True)])
def test_a_request_id_of_each_period_is_an_event_of_each_where_the_period_names_it(
    billing: Billing, backfill: Backfill, named_by: str, reads_whole_log: bool
) -> None:
    """A device numbers anew: the event of May was called a conflict with that of April, and never inserted."""
    identity = f"gateway_name,request_id,{named_by}"
    billing.query(WITHOUT_UNIQUE_KEY)
    prepare(BillingDatabase(billing.url, event_identity=parse_event_identity(identity)), with_billing_tables=False)
    for period in (LAST, CURRENT):
        billing.record("a", 5, period=period)
    billing.subscribe("b", period=CURRENT)
    # The application handed over at the renewal what the last period has: its time says which event it is.
    billing.add_event("a", 3, period=CURRENT, request_id="seq-9", event_timestamp="2025-05-09T23:59:58Z")
    sum_the_log(billing, identity=identity)
    if reads_whole_log:
        billing.query("alter table billing_usage_events drop column ingest_xid")
    april, may = "a,seq-1,5,2025-04-12T00:00:00Z", "a,seq-1,5,2025-05-12T00:00:00Z"
    late, subscribed = "a,seq-9,3,2025-05-09T23:59:58Z", "b,seq-2,5,2025-05-20T00:00:00Z"

    assert outcome(backfill(april, identity=identity)) == (1, 0, 0, 0)
    for dry_run in (True, False):
        again = backfill(april, may, late, subscribed, identity=identity, dry_run=dry_run)
        assert outcome(again) == (2, 2, 0, 0)
    billing.query("update billing_subscriptions set current_period_start = %s, current_period_end = %s", *NEXT)
    assert outcome(backfill(april, may, late, subscribed, identity=identity)) == (0, 4, 0, 0)

    sequence = "select period_start from billing_usage_events where request_id = 'seq-1' order by 1"
    assert [start for (start,) in billing.query(sequence)] == [LAST[0], CURRENT[0]]


def test_an_event_that_the_application_recorded_a_moment_later_is_a_duplicate(
    billing: Billing, backfill: Backfill
) -> None:
    """A queue hands it over after the renewal: it is in the next period, and the file, which names none, agrees."""
    billing.record("a", 1, period=LAST)
    billing.record("a", 2, period=CURRENT, request_id="late")
    billing.query("update billing_usage_events set event_timestamp = '2025-05-10T00:00:01Z' where request_id = 'late'")
    assert outcome(backfill("a,late,2,2025-05-09T23:59:59Z", "a,late,3,2025-05-09T23:59:59Z")) == (0, 1, 1, 0)


def test_a_known_period_comes_before_a_subscription_and_before_a_calendar_month(
    billing: Billing, backfill: Backfill
) -> None:
    week = (day(5, 12), day(5, 19))
    billing.add_counter("a", 0, period=week)
    billing.subscribe("a", period=CURRENT)
    billing.add_event("b", 1, period=week)
    lines = [f"{customer},{customer}{at},1,2025-05-{at}Z" for customer in "ab" for at in ("12T00:00:00", "18T23:59:59")]
    assert outcome(backfill(*lines)) == (4, 0, 0, 0)
    assert (periods(billing, "a"), periods(billing, "b")) == ([week], [week])


def test_a_subscription_decides_where_nothing_contradicts_it(billing: Billing, backfill: Backfill) -> None:
    for customer in "abc":
        billing.subscribe(customer, period=CURRENT)
    billing.record("b", 1, period=LAST)
    billing.record("c", 1, period=(day(4, 28), day(5, 5)))
    at = [f"{customer},{customer},1,2025-05-10T00:00:00Z" for customer in "abc"]
    batch = backfill(*at, "a,a2,1,2025-06-09T23:59:59.999999Z", "a,a3,1,2025-06-10T00:00:00Z")
    assert outcome(batch) == (3, 0, 0, 2)
    assert (periods(billing, "a"), periods(billing, "b")) == ([CURRENT], [LAST, CURRENT])
    weekly, after = backfill.reasons(batch)
    assert "is counted by other periods, as 2025-04-28" in weekly
    assert "2025-05-10T00:00:00+00:00 to 2025-06-10T00:00:00+00:00, is not of that time" in after


def test_of_two_subscriptions_that_cover_the_event_none_is_taken(billing: Billing, backfill: Backfill) -> None:
    billing.subscribe("a", period=CURRENT)
    billing.subscribe("a", period=CURRENT, status="canceled")
    billing.subscribe("b", period=CURRENT)
    billing.subscribe("b", period=MAY)
    batch = backfill("a,r1,1,2025-05-15T00:00:00Z", "b,r2,1,2025-05-15T00:00:00Z")
    assert outcome(batch) == (1, 0, 0, 1)
    assert "more than one subscription" in backfill.reasons(batch)[0]


def test_of_two_known_periods_none_is_taken(billing: Billing, backfill: Backfill) -> None:
    billing.add_counter("a", 1, period=MAY)
    billing.add_counter("a", 1, period=CURRENT)
    batch = backfill("a,r1,1,2025-05-09T00:00:00Z", "a,r2,1,2025-05-15T00:00:00Z")
    assert outcome(batch) == (1, 0, 0, 1)
    assert "know more than one period" in backfill.reasons(batch)[0]


def sum_the_log(billing: Billing, *, last: str = "2025-12", identity: str = "gateway_name,request_id") -> None:
    """Let a run store the sums of the log from January to a month."""
    run = new_run(billing.url, first="2025-01", last=last, event_identity=parse_event_identity(identity))
    assert run.aggregate() is not None


def record_months_beside_a_counter_of_a_year(billing: Billing) -> None:
    """The counter of the month was lost; another customer is counted by the year alone."""
    billing.add_counter("a", 5, period=YEAR)
    billing.add_event("a", 5, period=MAY)
    billing.add_counter("yearly", 5, period=YEAR)
    billing.add_event("yearly", 5, period=YEAR)


LOST = ("a,r1,1,2025-05-20T00:00:00Z", "yearly,r2,1,2025-05-20T00:00:00Z", "a,r3,1,2025-06-20T00:00:00Z")


def is_rejected_for_two_periods(backfill: Backfill) -> bool:
    """Whether of the three only the event in the month is rejected, for two periods that are possible."""
    batch = backfill(*LOST)
    (reason,) = backfill.reasons(batch)
    said = (
        f"know more than one period of this customer and usage type at 2025-05-20T00:00:00+00:00: {YEAR[0].isoformat()}"
    )
    return outcome(batch) == (2, 0, 0, 1) and said in reason and MAY[0].isoformat() in reason


def test_of_a_period_with_a_counter_and_another_that_only_the_log_knows_none_is_taken(
    billing: Billing, backfill: Backfill
) -> None:
    """The counter's was taken silently: usage of a month went to a year that nobody bills by."""
    record_months_beside_a_counter_of_a_year(billing)
    assert is_rejected_for_two_periods(backfill)
    assert (periods(billing, "a"), periods(billing, "yearly")) == ([YEAR, MAY], [YEAR])


def test_so_it_is_in_a_log_that_each_run_reads_whole(billing: Billing, backfill: Backfill) -> None:
    record_months_beside_a_counter_of_a_year(billing)
    sum_the_log(billing)
    billing.query("alter table billing_usage_events drop column ingest_xid")
    assert is_rejected_for_two_periods(backfill)


@pytest.mark.parametrize("came", ["before the sums", "after the sums", "by an update"])
def test_the_sums_of_the_log_tell_its_periods_and_no_customer_is_read(
    billing: Billing, backfill: Backfill, monkeypatch: pytest.MonkeyPatch, came: str
) -> None:
    if came == "before the sums":
        record_months_beside_a_counter_of_a_year(billing)
    if came == "by an update":
        billing.add_event("a", 5, period=YEAR, request_id="moved")
    sum_the_log(billing)
    if came == "by an update":
        move = "update billing_usage_events set period_start = %s, period_end = %s where request_id = 'moved'"
        billing.query(move, *MAY)
        billing.add_counter("a", 5, period=YEAR)
        billing.add_counter("yearly", 5, period=YEAR)
    if came == "after the sums":
        record_months_beside_a_counter_of_a_year(billing)
    monkeypatch.setattr(rows, "CHUNK_ROWS", 1)
    monkeypatch.delattr(Classifier, "_learn")
    assert is_rejected_for_two_periods(backfill)


def test_a_period_whose_events_have_left_the_log_is_not_known_any_more(billing: Billing, backfill: Backfill) -> None:
    """They had been inserted with a wrong period, and come again at once."""
    record_months_beside_a_counter_of_a_year(billing)
    sum_the_log(billing)
    billing.query("delete from billing_usage_events where period_start = %s", MAY[0])
    assert outcome(backfill(*LOST)) == (3, 0, 0, 0)
    assert periods(billing, "a") == [YEAR]


@pytest.mark.parametrize("lacking", ["a month", "the log", "what a truncation left"])
def test_what_the_sums_do_not_tell_is_looked_up_in_the_log(billing: Billing, backfill: Backfill, lacking: str) -> None:
    if lacking == "what a truncation left":
        billing.add_event("a", 5)
    sum_the_log(billing, last="2025-04" if lacking == "a month" else "2025-12")
    if lacking == "the log":
        billing.query("update recon.event_log set identity = 'another'")
    if lacking == "what a truncation left":
        billing.query("truncate billing_usage_events")
    record_months_beside_a_counter_of_a_year(billing)
    # So the events are neither new nor noted: they were there when the horizon was taken.
    billing.query("update billing_usage_events set ingest_xid = '3'")
    billing.query("delete from recon.invalidated_key where gateway_name is not null")
    assert is_rejected_for_two_periods(backfill)


def test_a_calendar_month_is_for_customers_of_whom_nothing_else_is_known(billing: Billing, backfill: Backfill) -> None:
    billing.subscribe("ended", period=LAST, status="canceled")
    billing.record("monthly", 1, period=(day(4, 1), day(5, 1)))
    billing.record("weekly", 1, period=(day(4, 7), day(4, 14)))
    # Another usage type of the customer tells as well, where its own says nothing.
    billing.add_event("other", 1, period=(day(4, 7), day(4, 14)), usage_type="sms_messages")
    names = ("new", "ended", "monthly", "weekly", "other")
    batch = backfill(*(f"{name},{name},1,2025-05-15T00:00:00Z" for name in names))
    assert outcome(batch) == (2, 0, 0, 3)
    assert (periods(billing, "new"), periods(billing, "monthly")) == ([MAY], [(day(4, 1), day(5, 1)), MAY])
    ended, weekly, other = backfill.reasons(batch)
    assert "is not of that time" in ended
    assert "is counted by other periods" in weekly
    assert "is counted by other periods" in other
    assert "map period_start and period_end" in ended


def test_the_calendar_month_is_that_of_the_zone_which_the_mapping_names(billing: Billing, backfill: Backfill) -> None:
    tokyo = SPEC | {"period": {"calendar_month": "Asia/Tokyo"}}
    hours = timedelta(hours=9)
    may = (day(5, 1) - hours, day(6, 1) - hours)
    assert outcome(backfill("a,r1,1,2025-04-30T15:00:00Z", "a,r2,1,2025-05-31T14:59:59Z", mapping=tokyo)) == (
        2,
        0,
        0,
        0,
    )
    assert periods(billing, "a") == [may]
    # Its usage is known by Tokyo's months now: one of UTC would be another way to count.
    batch = backfill("a,r3,1,2025-06-15T00:00:00Z")
    assert outcome(batch) == (0, 0, 0, 1)
    assert outcome(backfill("a,r3,1,2025-06-15T00:00:00Z", mapping=tokyo)) == (1, 0, 0, 0)


def test_what_a_customer_is_decided_by_does_not_depend_on_the_chunk(
    billing: Billing, backfill: Backfill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "CHUNK_ROWS", 2)
    billing.subscribe("a", period=CURRENT)
    billing.record("b", 1, period=LAST)
    lines = [f"{name},{name}{n},1,2025-05-{n:02d}T00:00:00Z" for n in range(5, 15) for name in "abc"]
    assert outcome(backfill(*lines)) == (5 + 5 + 10, 0, 0, 5 + 5)
    assert outcome(backfill(*reversed(lines))) == (0, 20, 0, 10)


MAPPED = SPEC | {"period_start": "from", "period_end": "to"}


def test_a_time_more_than_a_day_outside_its_mapped_period_is_rejected_unless_the_mapping_allows_it(
    billing: Billing, backfill: Backfill
) -> None:
    bounds = "2025-05-10T00:00:00Z,2025-06-10T00:00:00Z"
    inside = ["2025-05-09T00:00:00Z", "2025-06-11T00:00:00Z"]
    outside = ["2025-05-08T23:59:59.999999Z", "2025-06-11T00:00:00.000001Z"]
    lines = [f"a,{at},1,{at},{bounds}" for at in inside + outside]
    batch = backfill(*lines, header=f"{HEADER},from,to", mapping=MAPPED)
    assert outcome(batch) == (2, 0, 0, 2)
    assert all("more than a day outside its period" in reason for reason in backfill.reasons(batch))
    allowed = backfill(*lines, header=f"{HEADER},from,to", mapping=MAPPED | {"allow": ["time_outside_period"]})
    assert outcome(allowed) == (2, 2, 0, 0)


def test_a_time_in_the_future_is_rejected_unless_the_mapping_allows_it(billing: Billing, backfill: Backfill) -> None:
    now: datetime = billing.value("select date_trunc('second', now())")
    bounds = ",".join(one.isoformat() for one in (now - timedelta(hours=1), now + timedelta(hours=1)))
    first = f"{now.year}-{now.month:02d}"
    lines = [f"a,{minutes},1,{(now + timedelta(minutes=minutes)).isoformat()},{bounds}" for minutes in (9, 12)]
    batch = backfill(*lines, header=f"{HEADER},from,to", months=(first, first), mapping=MAPPED)
    assert outcome(batch) == (1, 0, 0, 1)
    assert "is in the future" in backfill.reasons(batch)[0]
    allowed = backfill(
        *lines, header=f"{HEADER},from,to", months=(first, first), mapping=MAPPED | {"allow": "time_in_future"}
    )
    assert outcome(allowed) == (1, 1, 0, 0)


def test_a_log_beside_no_subscriptions_has_calendar_months_and_what_is_known(
    billing: Billing, backfill: Backfill
) -> None:
    billing.query("drop table billing_subscriptions")
    billing.record("a", 1, period=CURRENT)
    batch = backfill("a,r1,1,2025-05-15T00:00:00Z", "b,r2,1,2025-05-15T00:00:00Z", "a,r3,1,2025-07-15T00:00:00Z")
    assert outcome(batch) == (2, 0, 0, 1)
    assert (periods(billing, "a"), periods(billing, "b")) == ([CURRENT], [MAY])
