"""Worlds for adversaries, one for each way in which a run can read."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from recon_pipeline_tests.adversary.world import AUDIT, BARE_LOG, MODES, TICK, Application, World, make_world
from recon_pipeline_tests.reconciliation.billing import connected
from recon_pipeline_tests.reconciliation.conftest import private_cluster, private_server
from recon_pipeline_tests.support.postgres import PostgresServer

__all__ = ["private_cluster", "private_server"]


@pytest.fixture
def worlds(postgres_server: PostgresServer) -> Iterator[Callable[[str], World]]:
    """`worlds(mode)` gives a fresh world."""
    with ExitStack() as opened:

        def billing(url: str) -> Application:
            application = Application(url, opened.enter_context(connected(url, autocommit=True)))
            opened.callback(application.close)
            return application

        yield lambda mode: make_world(postgres_server, billing, mode)


@pytest.fixture(params=MODES)
def world(request: pytest.FixtureRequest, worlds: Callable[[str], World]) -> World:
    """A world in each of the modes."""
    return worlds(request.param)


@pytest.fixture(params=[TICK, BARE_LOG])
def ticking(request: pytest.FixtureRequest, worlds: Callable[[str], World]) -> World:
    """A world of the schedule: increments, and a log that was never prepared."""
    return worlds(request.param)


@pytest.fixture
def incremental(worlds: Callable[[str], World]) -> World:
    """A world in which runs read what is new."""
    return worlds(TICK)


@pytest.fixture
def audited(worlds: Callable[[str], World]) -> World:
    """A world in which runs read the log itself, beside aggregates."""
    return worlds(AUDIT)
