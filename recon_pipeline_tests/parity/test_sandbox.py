"""What the fake Stripe assumes (fake_stripe.md), asserted against a real sandbox; without one it is skipped.

It needs STRIPE_TEST_API_KEY: the secret key of a sandbox (sk_test_…), or a restricted one (rk_test_…) that may write
customers, billing meters and meter events, and read events; and `recon-pipeline[stripe]`. It makes a customer and a
meter of its own, and deletes the one and deactivates the other at the end. It takes some minutes, because it waits for
the aggregation. Never set the variable in CI.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from recon_pipeline.core.parity.windows import Window, cut_to
from recon_pipeline.parity_settings import STRIPE_URL
from recon_pipeline.providers.protocol import RefusedCustomerError
from recon_pipeline.providers.stripe import PAGE_ROWS, StripeMeters

KEY = os.environ.get("STRIPE_TEST_API_KEY", "")
LONGEST_WAIT_SECONDS = 1_800
"""The default of RECON_STRIPE_LAG_MINUTES: what takes longer disproves it."""

pytestmark = pytest.mark.skipif(not KEY.startswith(("sk_test_", "rk_test_")), reason="needs STRIPE_TEST_API_KEY")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True)
class Sandbox:
    """A customer and a meter of a test's own.

    Attributes:
        client: Of the real SDK.
        customer: Its id.
        meter: Its id.
        event_name: Of the meter.
        meters: The product's.
    """

    client: Any
    customer: str
    meter: str
    event_name: str
    meters: StripeMeters

    def send(self, value: object, at: datetime, identifier: str, *, customer: str | None = None) -> None:
        """One meter event."""
        payload = {"stripe_customer_id": customer or self.customer, "value": str(value)}
        self.client.v1.billing.meter_events.create(
            {
                "event_name": self.event_name,
                "payload": payload,
                "identifier": identifier,
                "timestamp": int(at.timestamp()),
            }
        )

    def summaries(self, start: int, end: int, **more: object) -> Any:
        """One page as the API gives it."""
        return self.client.v1.billing.meters.event_summaries.list(
            self.meter, {"customer": self.customer, "start_time": start, "end_time": end, **more}
        )

    def wait_for(self, units: int, window: Window) -> None:
        """Wait until the meter has so much."""
        until = time.monotonic() + LONGEST_WAIT_SECONDS
        while (has := self.meters.total(self.meter, self.customer, window)) != units:
            assert time.monotonic() < until, f"{has} and not {units} after {LONGEST_WAIT_SECONDS} s"
            time.sleep(5)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    import stripe

    client = stripe.StripeClient(KEY)
    name = f"recon_{uuid4().hex}"
    customer = client.v1.customers.create({"name": name})
    meter = client.v1.billing.meters.create(
        {"display_name": name, "event_name": name, "default_aggregation": {"formula": "sum"}}
    )
    try:
        yield Sandbox(client, customer.id, meter.id, name, StripeMeters(KEY, STRIPE_URL))
    finally:
        client.v1.billing.meters.deactivate(meter.id)
        client.v1.customers.delete(customer.id)


def refused(call: Any, *arguments: Any, **named: Any) -> str:
    """The words with which Stripe refuses a call, with HTTP 400."""
    import stripe

    with pytest.raises(stripe.InvalidRequestError) as error:
        call(*arguments, **named)
    assert error.value.http_status == 400
    return str(error.value.user_message or error.value)


def test_a_meter_that_sums_is_comparable(sandbox: Sandbox) -> None:
    found = sandbox.meters.meter(sandbox.meter)
    assert (found.event_name, found.why_not) == (sandbox.event_name, "")


def test_windows_must_be_aligned_to_minutes_hours_and_days(sandbox: Sandbox) -> None:
    day = int(cut_to(datetime.now(UTC), DAY).timestamp())
    assert refused(sandbox.summaries, day - 60 * 60 + 1, day)
    assert refused(sandbox.summaries, day - 60 * 60 + 60, day, value_grouping_window="hour")
    assert refused(sandbox.summaries, day - 60 * 60, day, value_grouping_window="day")
    assert sandbox.summaries(day - 60, day)


def test_a_timestamp_may_be_35_days_old_and_5_minutes_ahead_and_no_more(sandbox: Sandbox) -> None:
    now = datetime.now(UTC)
    assert refused(sandbox.send, 1, now - 35 * DAY - HOUR, uuid4().hex)
    assert refused(sandbox.send, 1, now + timedelta(minutes=6), uuid4().hex)


def test_a_repeated_identifier_is_refused(sandbox: Sandbox) -> None:
    identifier, at = uuid4().hex, datetime.now(UTC) - 30 * DAY
    sandbox.send(1, at, identifier)
    assert refused(sandbox.send, 1, at, identifier).startswith("An event already exists with identifier")


def test_sums_arrive_within_the_lag_exactly_by_hour_newest_first_and_on_pages(sandbox: Sandbox) -> None:
    first = cut_to(datetime.now(UTC), DAY) - 3 * DAY
    window = Window(first, first + DAY)
    hours = [hour for hour in range(24) if hour % 2 == 0]
    for hour in hours:
        sandbox.send(hour + 1, first + hour * HOUR + timedelta(minutes=7), uuid4().hex)
    sandbox.wait_for(sum(hour + 1 for hour in hours), window)

    grouped = sandbox.meters.grouped(sandbox.meter, sandbox.customer, window, "hour")

    assert {start: units for start, units in grouped.items() if units} == {
        first + hour * HOUR: Decimal(hour + 1) for hour in hours
    }
    span = int(window.start.timestamp()), int(window.end.timestamp())
    page = sandbox.summaries(*span, value_grouping_window="hour")
    assert (len(page.data), page.has_more) == (10, True), "ten by default"
    starts = [one.start_time for one in page.data]
    assert starts == sorted(starts, reverse=True)
    assert refused(sandbox.summaries, *span, limit=PAGE_ROWS + 1)
    assert len(sandbox.summaries(*span).data) == 1, "one for the range"
    assert sandbox.meters.total(sandbox.meter, sandbox.customer, Window(first - DAY, first)) == 0


def test_an_unknown_customer_is_refused_and_error_reports_may_be_read(sandbox: Sandbox) -> None:
    window = Window(cut_to(datetime.now(UTC), DAY) - DAY, cut_to(datetime.now(UTC), DAY))
    with pytest.raises(RefusedCustomerError):
        sandbox.meters.total(sandbox.meter, "cus_nobody", window)
    assert sandbox.meters.rejections(sandbox.meter) == ()
