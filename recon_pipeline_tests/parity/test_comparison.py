"""The log against Stripe's meter, by the real SDK: exact, in few calls, kept when killed, and without a write."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.parity.windows import Window
from recon_pipeline.faces.demo.fake_stripe import KEY, METER, RefusedError
from recon_pipeline.providers.pace import Pace
from recon_pipeline.providers.protocol import NotAllowedError, ProviderError
from recon_pipeline.providers.stripe import ATTEMPTS, StripeMeters
from recon_pipeline_tests.parity.comparing import AFTER_FINAL, Application
from recon_pipeline_tests.reconciliation.billing import JUNE, MAY

NOON = datetime(2025, 5, 20, 12, 30, tzinfo=UTC)
DAY = timedelta(days=1)
SUMMARIES = f"/v1/billing/meters/{METER}/event_summaries"


def test_customers_whose_sums_are_equal_cost_one_call_each_and_none_again_on_that_day(app: Application) -> None:
    for number in range(3):
        app.use(f"c{number}", 7, NOON)
    passed = app.compare(NOON + DAY)
    assert (app.coverage().keys, passed.compared, passed.is_done, app.found()) == (3, 3, True, [])
    assert app.stripe.calls.count(SUMMARIES) == 3
    app.compare(NOON + DAY + timedelta(hours=1))
    assert app.stripe.calls.count(SUMMARIES) == 3
    app.use("c1", 2, NOON + DAY)
    assert app.compare(NOON + DAY + timedelta(hours=2)).compared == 1, "the customer with news"
    assert app.compare(NOON + DAY * 3).compared == 3, "each open key once a day"


def test_each_class_of_difference_is_found_with_its_evidence_and_changes_nothing(app: Application) -> None:
    now = AFTER_FINAL - timedelta(hours=1, minutes=30)
    app.use("counted", 5, NOON)
    app.use("doubled", 5, NOON, sends=2)
    app.use("erased", 5, NOON, logs=False)
    app.use("lost", 5, NOON, sends=0)
    app.use("misplaced", 5, NOON, stamped=MAY[0] - timedelta(days=1))
    app.use("on_its_way", 5, NOON, sends=0, created_at=now - timedelta(minutes=29))
    app.use("refused", 5, NOON, sends=0)
    app.stripe.reject("refused/20-12:30:00")
    before = app.billing.log_checksum(), app.billing.counters()

    assert app.compare(now).is_done

    assert app.found() == [
        ("doubled", "over_reported", 5),
        ("erased", "over_reported", 5),
        ("lost", "missing", -5),
        ("misplaced", "misplaced", -5),
        ("on_its_way", "lagging", -5),
        ("refused", "rejected", -5),
    ]
    evidence = app.evidence()
    assert evidence["rejected"] == (
        "meter_event_invalid_value: refused/20-12:30:00; the invoice is final at 2025-06-01 01:00 UTC"
    )
    assert evidence["misplaced"] == "with the windows before and after it, both sides are equal"
    assert evidence["missing"] == "the invoice is final at 2025-06-01 01:00 UTC; Stripe accepts the timestamps"
    assert (app.billing.log_checksum(), app.billing.counters()) == before
    app.compare(AFTER_FINAL)
    assert ("lost", "finalized", -5) in app.found()
    app.compare(NOON + DAY * 36)
    assert ("lost", "expired", -5) in app.found()


def test_what_was_sent_afterwards_is_compared_again_and_is_no_difference_any_more(app: Application) -> None:
    lost = app.use("a", 5, NOON, sends=0)
    app.compare(NOON + DAY)
    assert app.found() == [("a", "missing", -5)]
    app.stripe.send("a", 5, NOON, lost)
    app.compare(NOON + DAY + timedelta(hours=1))
    assert app.found() == []


def test_numbers_beyond_floats_are_compared_to_the_last_digit_and_beyond_2_to_the_53_not_at_all(
    app: Application,
) -> None:
    app.billing.query("alter table billing_usage_events alter quantity type bigint")
    app.use("exact", 2**53, NOON)
    app.use("beyond", 2**53, NOON)
    app.use("beyond", 2, NOON, request_id="more", sends=0)
    app.compare(NOON + DAY)
    assert app.found() == [("beyond", "not_comparable", -2)]
    window = Window(*MAY)
    app.stripe.send("one_more", 2**53 + 1, NOON, "x")
    assert StripeMeters(KEY, app.stripe.url).total(METER, "one_more", window) == Decimal(2**53 + 1)


def test_hours_on_many_pages_are_read_to_the_end(app: Application) -> None:
    app.stripe.page_rows = 5
    for hour in range(20):
        app.use("a", 1, datetime(2025, 5, 20, hour, 5, tzinfo=UTC), sends=0 if hour == 3 else 1)
    app.compare(NOON + DAY)
    assert app.found() == [("a", "missing", -1)]


@pytest.mark.parametrize(
    ("metering", "stamped"),
    [
        ({"sends": "hour"}, NOON.replace(minute=0)),
        ({"sends": "hour", "stamped_at": "end"}, NOON.replace(hour=13, minute=0)),
        ({"sends": "day"}, NOON.replace(hour=0, minute=0)),
        ({"timestamp": "period_start"}, MAY[0]),
    ],
)
def test_sums_are_compared_by_the_timestamps_as_they_are_sent(
    app: Application, metering: dict[str, str], stamped: datetime
) -> None:
    app.use("a", 5, NOON, stamped=stamped)
    app.use("b", 5, NOON, sends=0)
    app.compare(NOON + DAY * 2, **metering)
    ((window_start,),) = app.billing.query("select window_start from recon.parity_difference")
    assert app.found() == [("b", "missing", -5)]
    assert window_start == stamped.replace(minute=0)


def test_the_customer_that_stripe_knows_may_stand_in_the_metadata(app: Application) -> None:
    app.use("ours", 5, NOON, metadata='{"stripe": "cus_1"}', sends=0)
    app.stripe.now = NOON
    app.stripe.send("cus_1", 5, NOON, "x")
    app.compare(NOON + DAY, customer="metadata.stripe")
    assert (app.found(), app.coverage().refused) == ([], 0)


def test_events_with_the_label_of_another_period_than_their_time_are_counted(app: Application) -> None:
    app.use("a", 5, NOON)
    app.use("a", 3, NOON + timedelta(hours=1), period=JUNE)
    app.compare(NOON + DAY)
    assert (app.coverage().elsewhere_count, app.coverage().elsewhere_units, app.found()) == (1, 3, [])


def test_a_customer_that_stripe_refuses_stops_none_of_the_others(app: Application) -> None:
    for customer in ("a", "b", "c"):
        app.use(customer, 5, NOON, sends=int(customer != "b"))
    app.stripe.customers = {"a", "c"}
    passed = app.compare(NOON + DAY)
    assert (passed.compared, passed.refused, passed.is_done) == (3, 1, True)
    ((said,),) = app.billing.query("select error from recon.parity_key where error is not null")
    assert said == "Stripe refuses: No such customer: 'b'"


def test_an_outage_ends_the_pass_which_says_so_and_the_next_one_goes_on_where_it_was(app: Application) -> None:
    for number in range(25):
        app.use(f"c{number:02}", 5, NOON)
    comparison = app.comparison(NOON + DAY)
    asked = comparison.meters.total

    def total(meter: str, customer: str, window: Window) -> Decimal:
        if customer == "c22":
            app.stripe.fails = [RefusedError(503, "overloaded")] * ATTEMPTS
        return asked(meter, customer, window)

    comparison.meters.total = total  # pyright: ignore[reportAttributeAccessIssue]
    passed = comparison.run()
    assert (passed.compared, passed.is_done) == (22, False)
    assert passed.ended_because == "Stripe did not answer after 5 attempts: overloaded"
    assert app.coverage().compared == 22
    assert app.compare(NOON + DAY + timedelta(hours=1)).compared == 3


def test_a_refusal_for_too_many_calls_is_waited_out_as_long_as_stripe_says(app: Application) -> None:
    app.use("a", 5, NOON)
    app.stripe.fails = [RefusedError(429, "slow down", Retry_After="17"), RefusedError(429, "slow down")]
    assert app.compare(NOON + DAY).compared == 1
    assert [round(seconds) for seconds in app.waited if seconds > 0.1][:1] == [17]


def test_calls_keep_to_twenty_a_second() -> None:
    clock = [100.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    pace = Pace(now=lambda: clock[0], sleep=sleep)
    for _ in range(41):
        pace.wait()
    assert clock[0] - 100 == pytest.approx(2.0)
    pace.hold(5)
    pace.wait()
    assert clock[0] - 100 == pytest.approx(7.0)


def test_without_the_right_to_read_error_reports_the_comparison_is_made_and_says_so(app: Application) -> None:
    app.use("a", 5, NOON, sends=0)
    app.stripe.may_read_events = False
    passed = app.compare(NOON + DAY)
    assert passed.rejections_unknown_because == "The key in STRIPE_API_KEY may not read /v2/core/events."
    assert app.found() == [("a", "missing", -5)]


@pytest.mark.parametrize(
    ("meter", "said"),
    [
        ({"status": "inactive"}, "it is inactive"),
        ({"default_aggregation": {"formula": "count"}}, "its formula is count, not sum"),
        ({"event_time_window": "day"}, "of each day it keeps only the newest event"),
    ],
)
def test_a_meter_that_sums_otherwise_is_refused_in_every_comparison(
    app: Application, meter: dict[str, object], said: str
) -> None:
    app.stripe.meter |= meter
    with pytest.raises(ReconError, match=f"The meter {METER} cannot be compared with sums of the log: {said}."):
        app.compare(NOON + DAY)


def test_neither_the_key_nor_what_stripe_says_of_it_is_in_an_error_or_a_repr(app: Application) -> None:
    wrong = KEY + "x"
    meters = StripeMeters(wrong, app.stripe.url)
    with pytest.raises(NotAllowedError) as refused:
        meters.meter(METER)
    said = f"{refused.value!r} {refused.value} {refused.value.__cause__} {meters!r}"
    assert "hunter2" not in said
    assert refused.value.__suppress_context__
    with pytest.raises(ProviderError, match="Stripe has no meter mtr_other for this key") as unknown:
        StripeMeters(KEY, app.stripe.url).meter("mtr_other")
    assert unknown.value.fix.startswith("Correct the meter in RECON_STRIPE_METERS")


def test_a_customer_whose_events_name_two_of_stripes_customers_is_reported_and_not_compared(app: Application) -> None:
    app.use("ours", 5, NOON, metadata='{"stripe": "cus_1"}', sends=0)
    app.use("ours", 5, NOON + DAY, metadata='{"stripe": "cus_2"}', sends=0)
    assert app.compare(NOON + DAY * 2, customer="metadata.stripe").refused == 1
    assert app.billing.value("select error from recon.parity_key") == (
        "Its events name more than one customer of the provider."
    )


def test_customers_of_the_log_that_are_one_of_stripes_are_compared_together_and_listed_once(app: Application) -> None:
    for customer, stripes in (("a", "cus_1"), ("b", "cus_1"), ("c", "cus_2")):
        app.use(customer, 5, NOON, metadata=f'{{"stripe": "{stripes}"}}', sends=0)
        app.stripe.now = NOON
        app.stripe.send(stripes, 5, NOON, customer)
    app.compare(NOON + DAY, customer="metadata.stripe")
    assert (app.found(), app.coverage().refused) == ([], 0)

    app.use("b", 3, NOON + DAY, metadata='{"stripe": "cus_1"}', sends=0)
    app.compare(NOON + DAY * 2, customer="metadata.stripe")
    assert app.found() == [("a", "missing", -3)]

    app.stripe.send("cus_1", 3, NOON + DAY, "at last")
    app.compare(NOON + DAY * 2 + timedelta(hours=1), customer="metadata.stripe")
    assert app.found() == []


def test_what_one_customer_lost_is_found_although_stripe_has_what_the_other_one_used(app: Application) -> None:
    for customer in ("a", "b"):
        app.use(customer, 5, NOON, metadata='{"stripe": "cus_1"}', sends=0)
    app.stripe.now = NOON
    app.stripe.send("cus_1", 5, NOON, "a")
    app.compare(NOON + DAY, customer="metadata.stripe")
    assert app.found() == [("a", "missing", -5)]
