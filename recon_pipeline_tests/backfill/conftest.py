"""A database into which late events are inserted."""

from collections.abc import Iterator

import pytest

from recon_pipeline_tests.commands.conftest import prepared_template
from recon_pipeline_tests.reconciliation.billing import Billing, connected
from recon_pipeline_tests.support.postgres import PostgresServer


@pytest.fixture
def prepared_url(postgres_server: PostgresServer) -> str:
    """The plain URL of one with the application's tables and the product's schema, whose runs may repair."""
    return postgres_server.create_database(prepared_template(postgres_server))


@pytest.fixture
def billing(prepared_url: str) -> Iterator[Billing]:
    """The same with a session."""
    with connected(prepared_url, autocommit=True) as connection:
        yield Billing(prepared_url, connection)
