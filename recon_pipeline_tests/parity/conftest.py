from collections.abc import Iterator

import pytest

from recon_pipeline.faces.demo.fake_stripe import FakeStripe, fake_stripe
from recon_pipeline_tests.parity.comparing import Application
from recon_pipeline_tests.reconciliation.billing import MAY, Billing
from recon_pipeline_tests.reconciliation.conftest import billing, make_billing, make_incremental_billing

__all__ = ["billing", "make_billing", "make_incremental_billing"]


@pytest.fixture
def stripe() -> Iterator[FakeStripe]:
    """A Stripe whose clock stands at the beginning of May."""
    with fake_stripe(MAY[0]) as running:
        yield running


@pytest.fixture
def app(billing: Billing, stripe: FakeStripe) -> Application:
    """An application that sends what it counts to that Stripe."""
    return Application(billing, stripe)
