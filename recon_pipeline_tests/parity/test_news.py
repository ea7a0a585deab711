"""Which keys a comparison asks Stripe about, and in which order: those with news first, and none of them never."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from recon_pipeline.core.parity.windows import Window
from recon_pipeline.faces.demo.fake_stripe import FakeStripe
from recon_pipeline_tests.parity.comparing import AFTER_FINAL, Application
from recon_pipeline_tests.reconciliation.billing import JUNE, MAY, Billing
from recon_pipeline_tests.reconciliation.conftest import MakeBilling
from recon_pipeline_tests.reconciliation.product import new_run

NOON = datetime(2025, 5, 20, 12, 30, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@pytest.fixture(params=["incremental", "full"])
def app(request: pytest.FixtureRequest, make_incremental_billing: MakeBilling, stripe: FakeStripe) -> Application:
    """An application whose log carries transaction ids, and one whose log does not."""
    billing = make_incremental_billing()
    if request.param == "full":
        billing.query("alter table billing_usage_events drop column ingest_xid cascade")
    return Application(billing, stripe)


def asked(app: Application, now: datetime, *, seconds_a_call: int = 0, **metering: Any) -> list[str]:
    """The customers whom a pass asks Stripe about, in order; each call takes so long."""
    comparison = app.comparison(now, **metering)
    found: list[str] = []
    total = comparison.meters.total

    def noting(meter: str, customer: str, window: Window) -> Any:
        found.append(customer)
        return total(meter, customer, window)

    comparison.meters.total = noting  # pyright: ignore[reportAttributeAccessIssue]
    replace(comparison, clock=lambda: now + timedelta(seconds=seconds_a_call * len(found))).run()
    return list(dict.fromkeys(found))


def test_nothing_new_is_nothing_asked_and_what_is_new_is_asked_once(app: Application) -> None:
    for customer in ("a", "b", "c"):
        app.use(customer, 5, NOON)
    assert asked(app, NOON + HOUR) == ["a", "b", "c"]
    assert asked(app, NOON + 2 * HOUR) == []
    app.use("b", 2, NOON + 2 * HOUR)
    app.use("new", 1, NOON + 2 * HOUR)
    assert asked(app, NOON + 3 * HOUR) == ["new", "b"]
    assert asked(app, NOON + 4 * HOUR) == []


def test_an_event_that_commits_late_is_news_however_old_its_time_is(app: Application) -> None:
    app.use("a", 5, NOON)
    with app.billing.session() as other:
        other.add_event("a", 3, request_id="late", event_timestamp=NOON - DAY, created_at=NOON - DAY)
        assert asked(app, NOON + HOUR) == ["a"]
        other.connection.commit()
    assert asked(app, NOON + 2 * HOUR) == ["a"]
    assert app.found() == [("a", "missing", -3)]


@pytest.mark.parametrize("is_taken", [False, True], ids=["noted", "taken by a run"])
def test_an_event_that_was_erased_or_got_another_time_is_news(app: Application, is_taken: bool) -> None:
    for customer in ("erased", "moved", "other"):
        app.use(customer, 5, NOON)
    assert len(asked(app, NOON + HOUR)) == 3
    if is_taken:
        new_run(app.billing.url).aggregate()
    app.billing.query("delete from billing_usage_events where gateway_customer_id = 'erased'")
    app.billing.query(
        "update billing_usage_events set event_timestamp = %s where gateway_customer_id = 'moved'", MAY[0] - DAY
    )
    if is_taken:
        new_run(app.billing.url).aggregate()
    assert asked(app, NOON + 2 * HOUR)[:2] == ["erased", "moved"]
    assert app.found() == [("erased", "over_reported", 5), ("moved", "misplaced", 5)]


def test_after_a_truncation_every_key_has_news(app: Application) -> None:
    for customer in ("a", "b"):
        app.use(customer, 5, NOON)
    assert asked(app, NOON + HOUR) == ["a", "b"]
    app.billing.query("truncate billing_usage_events")
    assert asked(app, NOON + 2 * HOUR) == ["a", "b"]
    assert [kind for _, kind, _ in app.found()] == ["over_reported"] * 2


def test_events_that_are_sent_in_another_way_now_are_all_news(app: Application) -> None:
    app.use("a", 5, NOON, stamped=NOON.replace(minute=0))
    assert asked(app, NOON + HOUR) == ["a"]
    assert asked(app, NOON + 2 * HOUR, sends="hour") == ["a"]
    assert asked(app, NOON + 3 * HOUR, sends="hour") == []


def test_a_sum_that_is_stamped_at_the_end_of_its_hour_is_compared_when_that_has_come(app: Application) -> None:
    hours: dict[str, Any] = {"sends": "hour", "stamped_at": "end"}
    app.use("a", 5, NOON, sends=0)
    assert asked(app, NOON + 10 * MINUTE, **hours) == ["a"]
    app.use("a", 5, NOON + 10 * MINUTE, sends=0)
    asked(app, NOON + 20 * MINUTE, **hours)
    assert app.found() == [], "the sum of the hour has a time that has not come"
    assert asked(app, NOON + 40 * MINUTE, **hours) == ["a"]
    assert app.found() == [("a", "lagging", -10)]


@pytest.mark.parametrize("after", [timedelta(seconds=-15), timedelta(seconds=15), 2 * DAY])
def test_an_event_whose_time_is_after_the_whole_minutes_of_its_period_is_news_once(
    app: Application, after: timedelta
) -> None:
    end = datetime(2025, 5, 20, 7, 30, 30, tzinfo=UTC)
    period = (end - 19 * DAY, end)
    app.use("a", 5, end - DAY, period=period)
    assert asked(app, end - 12 * HOUR) == ["a"]
    app.use("a", 1, end - HOUR, period=period)
    app.use("a", 2, end + after, period=period, request_id="last")
    assert asked(app, end + 3 * DAY) == ["a"]
    assert asked(app, end + 3 * DAY + HOUR) == []


def test_keys_with_news_come_first_then_those_of_an_invoice_that_is_nearly_final_then_those_of_yesterday(
    app: Application,
) -> None:
    in_june = JUNE[0] + 2 * HOUR
    later = (JUNE[0] - 20 * DAY, JUNE[0] - 20 * DAY + 31 * DAY)
    for customer in ("closing", "lost"):
        app.use(customer, 5, NOON, sends=int(customer != "lost"))
    for customer in ("news", "quiet", "recent"):
        app.use(customer, 5, NOON, period=later)
    day_before = JUNE[0] - DAY
    assert len(asked(app, day_before)) == 5
    app.use("recent", 5, day_before + HOUR, period=later)
    assert "recent" in asked(app, day_before + 20 * HOUR)
    app.use("news", 5, day_before + 21 * HOUR, period=later)

    assert asked(app, JUNE[0] + 7 * MINUTE) == ["news", "closing", "lost", "quiet"]
    assert in_june == AFTER_FINAL
    assert asked(app, AFTER_FINAL) == ["closing", "lost"], "once after it, too"


def test_keys_of_yesterday_are_reached_although_news_would_take_all_of_a_pass(app: Application) -> None:
    for number in range(50):
        app.use(f"busy{number:02}", 5, NOON)
    for number in range(3):
        app.use(f"quiet{number}", 5, NOON)
    assert len(asked(app, NOON + HOUR)) == 53
    for hours in (1, 24):
        for number in range(50):
            app.use(f"busy{number:02}", 5, NOON + hours * HOUR)
        if hours == 1:
            assert len(asked(app, NOON + 2 * HOUR)) == 50

    reached = asked(app, NOON + DAY + HOUR, seconds_a_call=100)

    first = 40 * 60 // 100
    assert all(customer.startswith("busy") for customer in reached[:first])
    assert reached[first : first + 3] == ["quiet0", "quiet1", "quiet2"]
    assert len(reached) == 50 * 60 // 100 + 1


def test_customers_who_are_one_of_stripes_are_asked_about_again_only_if_one_of_them_has_news(app: Application) -> None:
    by_metadata: dict[str, Any] = {"customer": "metadata.stripe"}
    for customer in ("a", "b"):
        app.use(customer, 5, NOON, sends=0, metadata='{"stripe": "cus_1"}')
    app.stripe.now = NOON
    app.stripe.send("cus_1", 10, NOON, "both")
    assert asked(app, NOON + HOUR, **by_metadata) == ["cus_1"]
    assert asked(app, NOON + 2 * HOUR, **by_metadata) == []
    app.use("b", 5, NOON + HOUR, sends=0, metadata='{"stripe": "cus_1"}')
    assert asked(app, NOON + 3 * HOUR, **by_metadata) == ["cus_1"]
    assert app.found() == [("a", "missing", -5)]


def test_notes_of_changed_events_do_not_pile_up_where_nobody_compares_any_more(
    make_incremental_billing: MakeBilling, stripe: FakeStripe
) -> None:
    app = Application(make_incremental_billing(), stripe)
    for number in range(10):
        app.use("a", 1, NOON, request_id=f"r{number}")
    asked(app, NOON + HOUR)
    app.use("never compared", 1, NOON)
    run = new_run(app.billing.url)
    run.aggregate()
    for number in range(10):
        app.billing.query("delete from billing_usage_events where request_id = %s", f"r{number}")
        run.aggregate()
    app.billing.query("delete from billing_usage_events where gateway_customer_id = 'never compared'")
    run.aggregate()
    assert app.billing.query("select gateway_customer_id from recon.parity_note") == [("a",)]


def test_two_comparisons_at_once_mark_news_once_and_lose_none(billing: Billing, stripe: FakeStripe) -> None:
    app = Application(billing, stripe)
    app.use("a", 5, NOON)
    with billing.session() as other:
        other.value("select pg_advisory_xact_lock(720271127)::text")
        assert asked(app, NOON + HOUR) == [], "the other one adds the keys"
    assert asked(app, NOON + HOUR) == ["a"]


def test_what_is_lost_while_two_comparisons_overlap_is_found_by_the_next_one(app: Application) -> None:
    """The second one has looked past the event; the first one, which ends later, has not seen it."""
    app.use("a", 5, NOON)
    first = app.comparison(NOON + HOUR)
    total = first.meters.total
    begun: list[datetime] = [NOON + HOUR]

    def overlapped(meter: str, customer: str, window: Window) -> Any:
        if len(begun) == 1:
            begun.append(NOON + HOUR + 10 * MINUTE)
            app.use("a", 3, NOON + 20 * MINUTE, sends=0)
            app.compare(begun[-1])
            begun.append(NOON + HOUR + 20 * MINUTE)
        return total(meter, customer, window)

    first.meters.total = overlapped  # pyright: ignore[reportAttributeAccessIssue]
    replace(first, clock=lambda: begun[-1]).run()

    app.compare(NOON + 2 * HOUR)
    assert app.found() == [("a", "missing", -3)]
