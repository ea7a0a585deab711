"""What Stripe, the application and the operator do that nobody planned for: storms, outages, moved meters, odd ids."""

import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.parity.metering import parse_meters
from recon_pipeline.faces.demo.fake_stripe import KEY, METER, RefusedError
from recon_pipeline.providers.pace import Pace
from recon_pipeline.providers.protocol import NoAnswerError
from recon_pipeline.providers.stripe import ATTEMPTS, StripeMeters
from recon_pipeline_tests.parity.comparing import AFTER_FINAL, Application
from recon_pipeline_tests.reconciliation.billing import MAY

NOON = datetime(2025, 5, 20, 12, 30, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.mark.parametrize("asked", ["61", "3600", "1e9", "inf"])
def test_where_stripe_asks_to_wait_for_longer_than_a_pass_can_it_is_left_alone_and_the_pass_says_so(
    app: Application, asked: str
) -> None:
    for customer in ("a", "b"):
        app.use(customer, 5, NOON)
    comparison = app.comparison(NOON + DAY)
    meters = comparison.meters
    answer = app.stripe.answer

    def storm(path: str, given: dict[str, str]) -> dict[str, Any]:
        if given.get("customer") == "b":
            app.stripe.calls.append("b")
            raise RefusedError(429, "slow down", Retry_After=asked)
        return answer(path, given)

    app.stripe.answer = storm  # pyright: ignore[reportAttributeAccessIssue]
    passed = comparison.run()
    assert (passed.compared, passed.is_done) == (1, False)
    assert passed.ended_because.startswith("Stripe asks to be left alone for ")
    assert app.stripe.calls.count("b") == 1, "it is not asked again before that is over"
    assert meters is comparison.meters
    assert max(app.waited, default=0) < 60


@pytest.mark.parametrize("asked", ["Wed, 21 Oct 2026 07:28:00 GMT", "-5", "nan", "soon", ""])
def test_a_refusal_that_says_nothing_usable_of_when_is_tried_again_later_each_time(
    app: Application, asked: str
) -> None:
    app.use("a", 5, NOON)
    app.stripe.fails = [RefusedError(429, "slow down", Retry_After=asked)] * (ATTEMPTS - 1)
    assert app.compare(NOON + DAY).compared == 1
    waits = [seconds for seconds in app.waited if seconds > 0.1]
    assert len(waits) == ATTEMPTS - 1
    assert waits == sorted(waits)


def test_a_storm_of_refusals_ends_the_pass_with_what_was_compared_and_the_next_one_goes_on(app: Application) -> None:
    for number in range(6):
        app.use(f"c{number}", 5, NOON)
    answer = app.stripe.answer
    is_storm = threading.Event()

    def storm(path: str, given: dict[str, str]) -> dict[str, Any]:
        if given.get("customer") == "c3":
            is_storm.set()
        if is_storm.is_set():
            raise RefusedError(429, "slow down", Retry_After="2")
        return answer(path, given)

    app.stripe.answer = storm  # pyright: ignore[reportAttributeAccessIssue]
    passed = app.compare(NOON + DAY)
    assert (passed.compared, passed.refused, passed.is_done) == (3, 0, False)
    assert "slow down" in passed.ended_because
    app.stripe.answer = answer  # pyright: ignore[reportAttributeAccessIssue]
    assert app.compare(NOON + DAY + HOUR).compared == 3
    assert app.found() == []


@pytest.mark.parametrize("asked", [None, "61"])
def test_an_outage_at_the_first_call_ends_the_pass_and_says_so_and_stripe_is_left_alone_by_the_next_usage_too(
    app: Application, asked: str | None
) -> None:
    app.use("a", 5, NOON)
    headers = {"Retry_After": asked} if asked else {}
    app.stripe.fails = [RefusedError(503, "overloaded", **headers) for _ in range(ATTEMPTS)]
    first = app.comparison(NOON + DAY)
    passed = first.run()
    assert (passed.compared, passed.is_done) == (0, False)
    assert "overloaded" in passed.ended_because or "left alone for 61 seconds" in passed.ended_because
    asked_before = len(app.stripe.calls)
    again = first.run()
    assert again.is_done == (asked is None)
    assert (len(app.stripe.calls) == asked_before) == (asked is not None)


def test_a_stripe_that_is_not_there_is_named_with_what_failed() -> None:
    waited: list[float] = []
    pace = Pace(now=lambda: sum(waited), sleep=waited.append)
    with pytest.raises(NoAnswerError) as failed:
        StripeMeters(KEY, "http://127.0.0.1:9", pace).meter(METER)
    assert failed.value.what == (
        "Stripe did not answer after 5 attempts: the connection to http://127.0.0.1:9 failed (ConnectionError)"
    )


def test_two_usages_of_one_meter_are_refused_since_it_has_one_sum_for_both() -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_meters('{"commands": {"meter": "mtr_1"}, "minutes": {"meter": "mtr_1"}}')
    assert refused.value.what == (
        "RECON_STRIPE_METERS: 'commands' and 'minutes' have the same meter mtr_1, which has one sum for both."
    )


@pytest.mark.parametrize("customer", ["", " ", "a/b?c=d&e", "ü😀", "a\nb", "%2e", "x" * 500, "' or 1=1 --", "[bold]"])
def test_a_customer_of_any_name_is_asked_about_under_that_name_or_refused_alone(
    app: Application, customer: str
) -> None:
    app.use("other", 5, NOON)
    app.use(customer, 5, NOON)
    passed = app.compare(NOON + DAY)
    assert (passed.compared, passed.is_done) == (2, True), passed
    assert passed.refused == int(not customer)
    assert app.found() == []


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (datetime(2025, 5, 1, 7, 30, 15, tzinfo=UTC), datetime(2025, 5, 1, 7, 30, 45, tzinfo=UTC)),
        (datetime(2025, 5, 1, 7, 30, 59, tzinfo=UTC), datetime(2025, 5, 1, 7, 31, 1, tzinfo=UTC)),
        (datetime(2025, 5, 1, 23, 59, 59, 999_999, tzinfo=UTC), datetime(2025, 5, 31, 0, 0, 0, 1, tzinfo=UTC)),
        (datetime(2025, 5, 1, tzinfo=UTC), datetime(2026, 5, 1, tzinfo=UTC)),
    ],
)
def test_a_period_that_begins_and_ends_at_any_second_is_asked_about_in_whole_minutes(
    app: Application, start: datetime, end: datetime
) -> None:
    app.use("a", 5, start, period=(start, end))
    app.use("a", 3, end - timedelta(microseconds=1), period=(start, end), request_id="last", sends=0)
    passed = app.compare(end + 2 * HOUR)
    assert (passed.compared, passed.refused, passed.is_done) == (1, 0, True)
    assert all(kind in ("missing", "finalized", "expired") for _, kind, _ in app.found())


def test_neighbouring_periods_that_meet_at_a_second_count_each_event_once(app: Application) -> None:
    middle = datetime(2025, 5, 15, 9, 30, 30, tzinfo=UTC)
    first, second = (MAY[0], middle), (middle, MAY[1])
    for number, (at, period) in enumerate(((middle - timedelta(seconds=1), first), (middle, second))):
        app.use("a", 5 + number, at, period=period, request_id=f"r{number}")
    app.compare(AFTER_FINAL)
    assert app.found() == []
    assert app.coverage().log_units == 11


def test_a_key_whose_difference_no_sending_changes_is_asked_about_once_a_day(app: Application) -> None:
    app.use("lost", 5, NOON, sends=0)
    app.use("doubled", 5, NOON, sends=2)
    app.compare(AFTER_FINAL)
    assert [kind for _, kind, _ in app.found()] == ["over_reported", "finalized"]
    assert [app.compare(AFTER_FINAL + hours * HOUR).compared for hours in range(1, 23)] == [1] * 22, "the doubled one"
    assert app.compare(AFTER_FINAL + 24 * HOUR).compared == 2
    app.use("lost", 2, NOON, request_id="late", sends=0)
    assert app.compare(AFTER_FINAL + 25 * HOUR).compared == 2, "it has news"


def test_a_meter_with_fractions_is_compared_as_decimals_and_not_as_floats(app: Application) -> None:
    app.billing.query("alter table billing_usage_events alter quantity type numeric")
    app.billing.query(
        "insert into billing_usage_events (gateway_name, gateway_customer_id, usage_type, request_id, quantity, "
        "period_start, period_end, event_timestamp, created_at) select 'stripe', 'a', 'remote_commands', n::text, "
        "0.1, %s, %s, %s, %s from generate_series(1, 3) as n",
        *MAY,
        NOON,
        NOON,
    )
    app.billing.add_counter("a", 0)
    app.stripe.now = NOON
    for number in range(3):
        app.stripe.send("a", "0.1", NOON, str(number))
    app.compare(NOON + DAY)
    assert app.found() == []
    assert app.coverage().provider_units == Decimal("0.3")
