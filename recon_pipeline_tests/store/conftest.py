"""A database with everything that a statement may read."""

from collections.abc import Iterator

import psycopg
import pytest

from recon_pipeline_tests.reconciliation.billing import connected
from recon_pipeline_tests.reconciliation.conftest import install_increments, make_tables
from recon_pipeline_tests.support.postgres import PostgresServer


@pytest.fixture(scope="module")
def prepared_url(postgres_server: PostgresServer) -> str:
    """The plain URL of an empty database whose log can be read in increments; for tests that leave it as it is."""
    url = postgres_server.create_database()
    make_tables(url)
    install_increments(url)
    return url


@pytest.fixture
def session(prepared_url: str) -> Iterator[psycopg.Connection]:
    """A session of it, in a transaction that is rolled back."""
    with connected(prepared_url) as connection:
        yield connection
        connection.rollback()
