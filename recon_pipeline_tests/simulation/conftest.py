"""A server of the simulation's own, in which nobody acts but its actors."""

import os
from collections.abc import Iterator

import pytest

from recon_pipeline_tests.reconciliation.conftest import billing, make_billing, private_cluster, private_server
from recon_pipeline_tests.simulation import simulation
from recon_pipeline_tests.support.postgres import PostgresServer, running_server

__all__ = ["billing", "make_billing", "private_cluster", "private_server", "quiet_server"]


@pytest.fixture(scope="session")
def quiet_server(clean_environment: None) -> Iterator[PostgresServer]:
    """A server without autovacuum that looks for deadlocks soon."""
    with running_server({"RECON_TEST_POSTGRES": os.environ.get("RECON_TEST_POSTGRES", "18")}) as server:
        simulation.configure(server)
        yield server
