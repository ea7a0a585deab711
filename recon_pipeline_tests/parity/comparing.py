"""The application that sends usage to Stripe, and the comparison of its log with what Stripe has."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from recon_pipeline.assets.parity_pass import Comparison, Passed
from recon_pipeline.core.parity.metering import Metering
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import Extent, MeteredUsage
from recon_pipeline.faces.demo.fake_stripe import KEY, METER, FakeStripe
from recon_pipeline.providers.pace import Pace
from recon_pipeline.providers.protocol import Meters
from recon_pipeline.providers.stripe import StripeMeters
from recon_pipeline.store.parity import found as results
from recon_pipeline.store.parity.sending import Sending
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.reconciliation.billing import GATEWAY, MAY, USAGE, Billing, Period

EXTENT = Extent((MeteredUsage(GATEWAY, USAGE),), BillingMonth(2025, 5), BillingMonth(2025, 5))
AFTER_FINAL = MAY[1] + timedelta(hours=2)


def comparison(url: str, meters: Meters, now: datetime, **metering: Any) -> Comparison:
    """The comparison of a log at a moment."""
    sending = Sending(EXTENT.scope[0], Metering(METER, **metering), EXTENT)
    return Comparison(BillingDatabase(url), sending, meters, timedelta(minutes=30), lambda: now)


@dataclass
class Application:
    """Records usage and sends it, or fails to.

    Attributes:
        billing: Its database.
        stripe: The account that it sends to.
        waited: Seconds that the comparison slept.
    """

    billing: Billing
    stripe: FakeStripe
    waited: list[float] = field(default_factory=list[float])

    def use(
        self,
        customer: str,
        units: int,
        at: datetime,
        *,
        sends: int = 1,
        stamped: datetime | None = None,
        logs: bool = True,
        request_id: str | None = None,
        period: Period = MAY,
        created_at: datetime | None = None,
        metadata: str = "{}",
    ) -> str:
        """One use: in the log, and sent so many times."""
        request_id = request_id or f"{customer}/{at:%d-%H:%M:%S}"
        if logs:
            self.billing.add_event(
                customer,
                units,
                period=period,
                request_id=request_id,
                event_timestamp=at,
                created_at=created_at or at,
                metadata=metadata,
            )
        if self.billing.counter(customer, period=period) is None:
            self.billing.add_counter(customer, units, period=period)
        for number in range(sends):
            self.stripe.now = max(self.stripe.now, at, stamped or at)
            self.stripe.send(customer, units, stamped or at, f"{request_id}/{number}" if number else request_id)
        return request_id

    def comparison(self, now: datetime, meters: Any = None, **metering: Any) -> Comparison:
        """The comparison at a moment."""
        self.stripe.now = now
        pace = Pace(calls_per_second=1_000_000, now=lambda: sum(self.waited), sleep=self.waited.append)
        return comparison(self.billing.url, meters or StripeMeters(KEY, self.stripe.url, pace), now, **metering)

    def compare(self, now: datetime, **metering: Any) -> Passed:
        """Compare at a moment."""
        return self.comparison(now, **metering).run()

    def found(self) -> list[tuple[str, str, int]]:
        """Customer, class and units of each difference."""
        with BillingDatabase(self.billing.url).transaction() as connection:
            return sorted(
                (one.gateway_customer_id, one.kind, int(one.units)) for one in results.differences(connection, EXTENT)
            )

    def evidence(self) -> Mapping[str, str]:
        """Of the differences, by class."""
        return dict(self.billing.query("select kind, evidence from recon.parity_difference"))

    def coverage(self) -> results.Coverage:
        """How far it got."""
        with BillingDatabase(self.billing.url).transaction() as connection:
            return results.coverage(connection, EXTENT)
