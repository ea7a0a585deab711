"""A product with one guard rail taken away does not pass, and what catches it is named."""

import pytest

from recon_pipeline_tests.commands.conftest import prepared_template
from recon_pipeline_tests.reconciliation import traffic
from recon_pipeline_tests.reconciliation.conftest import incremental_template
from recon_pipeline_tests.simulation.mutations import MUTATIONS, FragmentGoneError, Mutation, Patch, mutated
from recon_pipeline_tests.simulation.scenes import Scene
from recon_pipeline_tests.simulation.simulation import Script, play
from recon_pipeline_tests.support.dagster import make_dagster_tables
from recon_pipeline_tests.support.postgres import PostgresServer

pytestmark = pytest.mark.long

# Without what takes as long as a test: several full garbage collections at the end of each session.
_WITHOUT = ("cacheprovider", "terminal", "timeout", "unraisableexception")
_BARE = ["-x", "-o", "addopts=", "-o", "timeout=0", *(f"-pno:{plugin}" for plugin in _WITHOUT)]

MOST_SECONDS = 5
"""For which a nested session waits for what a mutation keeps from happening."""


class Failed:
    """Remembers which tests failed in their calls."""

    def __init__(self) -> None:
        self.tests: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.tests.append(report.nodeid)


def violation(scene: Scene, quiet_server: PostgresServer) -> str | None:
    """What is wrong in a scene."""
    script = Script(list(scene.script))
    return play(scene.plan, script.choose, quiet_server, report=script.report).violation


def failing(test: str, quiet_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run a test of the suite on a server that runs already; returns what failed of it."""
    monkeypatch.setenv("DATABASE_URL", quiet_server.url("postgres"))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)  # in this process, whatever the whole suite runs in
    for waiting in (traffic.wait_until, traffic.wait_until_blocked):
        monkeypatch.setattr(waiting, "__kwdefaults__", {"seconds": MOST_SECONDS})
    failed = Failed()
    pytest.main([*_BARE, test], plugins=[failed])
    return failed.tests


@pytest.fixture
def server(quiet_server: PostgresServer) -> PostgresServer:
    """One that has what most tests copy, made by the product as it is: a nested session finds it there."""
    for template in (incremental_template, prepared_template):
        template(quiet_server)
    quiet_server.template("dagster", make_dagster_tables)
    return quiet_server


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_without_this_guard_rail_the_suite_fails(
    mutation: Mutation, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mutated(mutation):
        match mutation.caught_by:
            case str(test):
                assert [name for name in failing(test, server, monkeypatch) if name.startswith(test)]
            case Scene():
                assert violation(mutation.caught_by, server)


def test_with_every_guard_rail_the_same_scenes_pass(quiet_server: PostgresServer) -> None:
    scenes = [one.caught_by for one in MUTATIONS if isinstance(one.caught_by, Scene)]

    assert [violation(scene, quiet_server) for scene in scenes] == [None] * len(scenes)


def test_a_patch_that_does_not_fit_any_more_fails_loudly() -> None:
    gone = Mutation("nothing", (Patch("lock_counter", "not in this statement", ""),), "")
    with pytest.raises(FragmentGoneError, match="write this mutation anew"), mutated(gone):
        pass
