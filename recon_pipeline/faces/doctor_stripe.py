"""What `recon doctor` checks of the comparison with Stripe: the variables, the rights of the key, and the meters."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.findings import Finding, failed, noted, passed
from recon_pipeline.core.parity.metering import metered
from recon_pipeline.core.parity.windows import Window, to_minute
from recon_pipeline.parity_settings import observes, read_parity, read_prices
from recon_pipeline.providers.protocol import NotAllowedError, RefusedCustomerError
from recon_pipeline.providers.stripe import StripeMeters, require_stripe
from recon_pipeline.settings import Settings

NOBODY = "cus_recon_doctor"
"""A customer that no account has: Stripe looks at the rights of a key first."""


def check_stripe(settings: Settings) -> Iterator[Finding]:
    """Nothing, unless RECON_STRIPE_PARITY is observe."""
    try:
        if not observes():
            return
        require_stripe()
        parity = read_parity()
        read_prices()
        scope = metered(settings.scope, parity.meters)
    except ReconError as error:
        yield failed("Stripe", error.what, error.fix)
        return
    yield passed("Stripe", f"compared at {parity.url}, {parity.lag_minutes} minutes behind the log")
    for usage in settings.scope:
        if usage not in scope:
            yield noted("Stripe", f"RECON_STRIPE_METERS has no meter for {usage}, which is not compared")
    for usage_type in parity.meters.keys() - {usage.usage_type for usage in scope}:
        yield noted(
            "Stripe",
            f"RECON_STRIPE_METERS has a meter for {usage_type}, which is not compared: RECON_SCOPE has no "
            f"stripe:{usage_type}",
            "Correct its name in RECON_STRIPE_METERS, or leave it out.",
        )
    meters = StripeMeters(parity.key, parity.url)
    for usage in scope:
        try:
            yield _meter(meters, parity.meters[usage.usage_type].meter)
            yield _summaries(meters, parity.meters[usage.usage_type].meter)
        except ReconError as error:
            yield failed("Stripe's meter", error.what, error.fix)
            return
    try:
        for usage in scope[:1]:
            meters.rejections(parity.meters[usage.usage_type].meter)
            yield passed("Stripe's error reports", "the key may read them")
    except NotAllowedError as error:
        yield noted("Stripe's error reports", f"{error.what} Rejected events then look like missing ones.", error.fix)
    except ReconError as error:
        yield failed("Stripe's error reports", error.what, error.fix)


def _meter(meters: StripeMeters, asked: str) -> Finding:
    meter = meters.meter(asked)
    if meter.why_not:
        return failed(
            "Stripe's meter",
            f"{meter.id} cannot be compared: {meter.why_not}",
            "Name an active meter with the formula sum and no event time window in RECON_STRIPE_METERS.",
        )
    return passed("Stripe's meter", f"{meter.id} sums the events {meter.event_name}")


def _summaries(meters: StripeMeters, meter: str) -> Finding:
    now = to_minute(datetime.now(UTC))
    with suppress(RefusedCustomerError):
        meters.total(meter, NOBODY, Window(now - timedelta(minutes=1), now))
    return passed("Stripe's summaries", f"the key may read those of {meter}")
