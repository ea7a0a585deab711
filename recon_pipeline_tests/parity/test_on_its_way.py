"""What is on its way to the meter hides nothing else: neither what was lost before, nor where it was filed."""

from datetime import UTC, datetime, timedelta

import pytest

from recon_pipeline_tests.parity.comparing import AFTER_FINAL, Application
from recon_pipeline_tests.reconciliation.billing import JUNE, MAY

NOON = datetime(2025, 5, 20, 12, 30, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def use_each_minute(app: Application, start: datetime, minutes: int, **columns: object) -> None:
    """A customer who never stops; Stripe's sums have it five minutes later."""
    app.stripe.aggregates_after = 5 * MINUTE
    for minute in range(minutes):
        app.use("a", 1, start + minute * MINUTE, **columns)  # pyright: ignore[reportArgumentType]


def test_what_a_customer_lost_days_ago_is_missing_although_more_is_on_its_way(app: Application) -> None:
    app.use("a", 10, NOON - 10 * DAY, sends=0)
    use_each_minute(app, NOON, 60)
    app.compare(NOON + HOUR)
    assert app.found() == [("a", "lagging", -4), ("a", "missing", -10)]


def test_what_a_customer_sent_twice_days_ago_is_over_reported_although_more_is_on_its_way(app: Application) -> None:
    app.use("a", 1, NOON - 10 * DAY, sends=2)
    use_each_minute(app, NOON, 60)
    app.compare(NOON + HOUR)
    assert app.found() == [("a", "lagging", -4), ("a", "over_reported", 1)]


def test_where_all_that_differs_is_on_its_way_two_calls_say_so_for_the_whole_window(app: Application) -> None:
    use_each_minute(app, NOON, 60)
    asked = len(app.stripe.calls)
    app.compare(NOON + HOUR)
    assert app.found() == [("a", "lagging", -4)]
    assert sum(path.endswith("event_summaries") for path in app.stripe.calls[asked:]) == 2


def test_what_was_filed_into_the_next_period_is_misplaced_although_more_is_on_its_way_there(app: Application) -> None:
    app.use("a", 10, MAY[1] - HOUR, stamped=MAY[1] + MINUTE)
    use_each_minute(app, JUNE[0] + 10 * MINUTE, 40, period=JUNE)
    app.compare(JUNE[0] + 50 * MINUTE)
    assert app.found() == [("a", "misplaced", -10)]


@pytest.mark.parametrize("timestamp", ["created_at", "event_timestamp"])
def test_an_event_without_a_time_that_an_error_report_names_stops_no_comparison(
    app: Application, timestamp: str
) -> None:
    request_id = app.use("a", 5, NOON, sends=0)
    app.billing.query(f"update billing_usage_events set {timestamp} = null")
    app.stripe.reject(request_id)
    app.use("a", 4, NOON + MINUTE, sends=0)
    assert app.compare(AFTER_FINAL - HOUR - MINUTE, timestamp=timestamp).is_done
    assert app.found() == [("a", "missing", -4)]
