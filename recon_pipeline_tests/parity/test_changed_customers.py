"""A customer who is another one of Stripe's than before: each event is compared where it was sent."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import Extent
from recon_pipeline_tests.parity.comparing import Application
from recon_pipeline_tests.reconciliation.billing import MAY

NOON = datetime(2025, 5, 20, 12, 30, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
APRIL = datetime(2025, 4, 1, tzinfo=UTC), MAY[0]


def use(app: Application, customer: str, units: int, at: datetime, *, named: str, sends: int = 1) -> None:
    """One use, in the log and at the customer of Stripe's that the event names."""
    period = APRIL if at < MAY[0] else MAY
    request_id = f"{customer}/{at}"
    app.use(customer, units, at, metadata=f'{{"s": "{named}"}}', sends=0, period=period, request_id=request_id)
    if sends:
        app.stripe.now = max(app.stripe.now, at)
        app.stripe.send(named, units, at, request_id)


def compare(app: Application, now: datetime) -> None:
    """Over April and May."""
    one = app.comparison(now, customer="metadata.s")
    extent = Extent(one.sending.extent.scope, BillingMonth(2025, 4), BillingMonth(2025, 5))
    assert replace(one, sending=replace(one.sending, extent=extent)).run().is_done


def test_who_takes_over_a_customer_of_stripes_is_not_charged_with_what_the_other_one_sends_now(
    app: Application,
) -> None:
    use(app, "former", 5, NOON - 30 * DAY, named="cus_1")
    use(app, "former", 7, NOON, named="cus_2")
    use(app, "heir", 11, NOON, named="cus_1")
    compare(app, NOON + DAY)
    assert app.billing.query("select error from recon.parity_key where error is not null") == []
    assert app.found() == []
    use(app, "heir", 3, NOON + DAY, named="cus_1", sends=0)
    compare(app, NOON + 2 * DAY)
    assert app.found() == [("heir", "missing", -3)]


def test_usage_in_the_period_before_is_that_of_another_customer_of_stripes_and_explains_no_difference(
    app: Application,
) -> None:
    use(app, "moved", 7, NOON - 30 * DAY, named="cus_1")
    use(app, "moved", 7, NOON, named="cus_2")
    app.stripe.send("cus_2", 7, NOON, "sent by another program")
    compare(app, NOON + DAY)
    assert app.found() == [("moved", "over_reported", 7)]


def test_whom_a_wrong_setting_named_is_forgotten_once_it_is_corrected(app: Application) -> None:
    for customer in ("a", "b"):
        app.use(customer, 5, NOON, metadata='{"team": "t"}')
    app.compare(NOON + HOUR, customer="metadata.team")
    assert [kind for _, kind, _ in app.found()] == ["missing"]
    app.compare(NOON + 2 * HOUR)
    assert (app.found(), app.coverage().refused) == ([], 0)
    app.compare(NOON + 3 * HOUR, customer="metadata.reseller")
    assert (app.found(), app.coverage().refused) == ([], 2), "nobody is named by it"
