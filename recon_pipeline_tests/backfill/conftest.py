"""A database into which late events are inserted."""

from collections.abc import Iterator

import pytest

from recon_pipeline.faces.init import prepare
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.reconciliation.billing import Billing, connected
from recon_pipeline_tests.support.acceptance import accept_usages


@pytest.fixture
def billing(billing_database_url: str) -> Iterator[Billing]:
    """One with the application's tables and the product's schema, whose runs may repair."""
    prepare(BillingDatabase(billing_database_url), with_billing_tables=False)
    accept_usages(billing_database_url)
    with connected(billing_database_url, autocommit=True) as connection:
        yield Billing(billing_database_url, connection)
