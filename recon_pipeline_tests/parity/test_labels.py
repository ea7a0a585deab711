"""Which events lie in another period than the one of their label, by the time at which they are sent."""

from datetime import UTC, datetime, timedelta

from recon_pipeline_tests.parity.comparing import Application
from recon_pipeline_tests.reconciliation.billing import MAY

NOON = datetime(2025, 5, 20, 12, 30, tzinfo=UTC)
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)


def elsewhere(app: Application, now: datetime = NOON, **metering: str) -> tuple[int, int]:
    """How many events a comparison found so, with how many units."""
    app.compare(now, **metering)
    covered = app.coverage()
    return covered.elsewhere_count, int(covered.elsewhere_units)


def test_events_of_the_minute_in_which_one_period_ends_and_the_next_begins_have_the_right_label(
    app: Application,
) -> None:
    middle = datetime(2025, 5, 10, 7, 30, 30, tzinfo=UTC)
    first, second = (MAY[0], middle), (middle, MAY[1])
    app.use("a", 1, middle - 25 * SECOND, period=first)
    app.use("a", 1, middle - timedelta(microseconds=1), period=first, request_id="last")
    app.use("a", 1, middle, period=second)
    assert elsewhere(app) == (0, 0)
    app.use("a", 5, middle - 20 * SECOND, period=second)
    app.use("a", 7, middle + 20 * SECOND, period=first)
    assert elsewhere(app, NOON + HOUR) == (2, 12)


def test_events_of_periods_that_overlap_have_the_right_label_in_each(app: Application) -> None:
    app.use("a", 1, MAY[0] + DAY)
    app.use("a", 1, MAY[0] + 11 * DAY, period=(MAY[0] + 10 * DAY, MAY[0] + 25 * DAY))
    assert elsewhere(app) == (0, 0)


def test_a_sum_that_is_stamped_at_the_end_of_its_period_lies_in_the_next_one(app: Application) -> None:
    april = datetime(2025, 4, 1, tzinfo=UTC), MAY[0]
    app.use("a", 3, MAY[0] - SECOND, period=april, stamped=MAY[0])
    app.use("a", 4, MAY[0] + SECOND, stamped=MAY[0] + HOUR)
    assert elsewhere(app, sends="hour", stamped_at="end") == (1, 3)
    assert app.coverage().log_units == 7
    assert app.found() == []
