"""Databases with the application's tables and the product's schema, each test its own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import resources

import psycopg
import pytest

from recon_pipeline.store.database import BillingDatabase
from recon_pipeline.store.migrate import upgrade
from recon_pipeline_tests.reconciliation.billing import Billing, connected
from recon_pipeline_tests.support.postgres import PostgresServer

MakeBilling = Callable[..., Billing]


@pytest.fixture
def make_billing(postgres_server: PostgresServer) -> Iterator[MakeBilling]:
    """`make_billing(sql="")` gives a fresh migrated database in which this SQL has run."""
    template = postgres_server.template("migrated", _migrate)
    with ExitStack() as opened:

        def make(statements: str = "") -> Billing:
            url = postgres_server.create_database(template)
            connection = opened.enter_context(connected(url, autocommit=True))
            connection.execute(statements.encode())
            return Billing(url, connection)

        yield make


@pytest.fixture
def billing(make_billing: MakeBilling) -> Billing:
    """A fresh migrated database with the tables as the product itself would make them."""
    return make_billing()


@pytest.fixture
def job_billing(billing: Billing, monkeypatch: pytest.MonkeyPatch) -> Billing:
    """The same, and the environment names it, so that the Dagster job works on it."""
    monkeypatch.setenv("DATABASE_URL", billing.url)
    return billing


def _migrate(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute((resources.files("recon_pipeline") / "sql" / "billing_tables.sql").read_bytes())
    with BillingDatabase(url).connection() as connection:
        upgrade(connection)
