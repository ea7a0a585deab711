"""How the demo compares the log with Stripe: with a fake one on loopback, in which each class of difference happens.

Invariant: nothing leaves this machine, and no key of the environment is read. Without Stripe's SDK, which is an extra,
the demo says how to get it and goes on.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from recon_pipeline.assets.parity_pass import Comparison
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.parity.classes import DifferenceClass
from recon_pipeline.core.parity.metering import Metering, Price
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import Extent
from recon_pipeline.faces import parity
from recon_pipeline.faces.console import out
from recon_pipeline.faces.demo.fake_stripe import KEY, METER, fake_stripe
from recon_pipeline.faces.demo.sent_usage import FIRST_PERIOD_AGE, SENT_USAGE, USAGES, use_and_send
from recon_pipeline.faces.parity import Parity
from recon_pipeline.parity_settings import DEFAULT_LAG_MINUTES
from recon_pipeline.providers.pace import Pace
from recon_pipeline.providers.stripe import StripeMeters, require_stripe
from recon_pipeline.store.parity.sending import Sending
from recon_pipeline.store.postgres.database import BillingDatabase

_PRICES = {SENT_USAGE.usage_type: Price(Decimal("0.002"), "USD")}
_CALLS_PER_SECOND = 1_000
"""The fake has no limit, and a person waits."""


@dataclass(frozen=True)
class ComparedUsage:
    """What was compared.

    Attributes:
        found: What `recon parity` shows of it.
        calls: How many calls of Stripe's API that took.
    """

    found: Parity
    calls: int

    @property
    def is_complete(self) -> bool:
        """Whether every customer was compared, and each class was found at the customer to whom it happened."""
        happened = {usage.customer: str(usage.kind) for usage in USAGES if usage.kind}
        shown = {one.gateway_customer_id: one.kind for one in self.found.differences}
        return self.found.coverage.compared == len(USAGES) and shown == happened


def compare_with_fake_stripe(database: BillingDatabase, url: str, *, now: datetime) -> ComparedUsage | None:
    """Record usage, send it to a fake Stripe as well as it went, and compare; None without Stripe's SDK.

    Raises:
        ReconError: The comparison failed, with the reason.
    """
    try:
        require_stripe()
    except ConfigurationError:
        return None
    extent = Extent((SENT_USAGE,), BillingMonth.containing(now - FIRST_PERIOD_AGE), BillingMonth.containing(now))
    with fake_stripe(now) as stripe:
        use_and_send(url, stripe, now=now)
        meters = StripeMeters(KEY, stripe.url, Pace(_CALLS_PER_SECOND))
        sending, lag = Sending(SENT_USAGE, Metering(METER), extent), timedelta(minutes=DEFAULT_LAG_MINUTES)
        Comparison(database, sending, meters, lag, lambda: now).run()
    with database.transaction() as connection:
        return ComparedUsage(parity.read(connection, extent, _PRICES), meters.pace.calls)


def show(compared: ComparedUsage | None) -> None:
    """The same for a person."""
    out.rule("What Stripe will bill")
    if compared is None:
        out.print(
            "Not compared with Stripe's meters: that needs uv pip install 'recon-pipeline[stripe]'.",
            markup=False,
            soft_wrap=True,
        )
        return
    out.print(
        f"{len(USAGES)} customers sent {SENT_USAGE} to a fake Stripe on this machine; with {len(DifferenceClass)} of "
        f"them something went wrong. Their counters are right, and Stripe would bill otherwise. recon parity, after "
        f"{compared.calls} calls:",
        markup=False,
        soft_wrap=True,
    )
    parity.show(compared.found, None)


def as_json(compared: ComparedUsage | None) -> dict[str, Any] | None:
    """For the one object of `--json`."""
    return None if compared is None else {"calls": compared.calls, **parity.as_json(compared.found)}
