"""Fixtures on a real Postgres. Nothing of the developer's environment reaches a test.

`empty_database_url` and `billing_database_url` give a fresh database each; `create_database()` gives more of
them.
"""

import os
import signal
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from recon_pipeline_tests.support.dagster import (
    connections_kept,
    instance_in,
    make_dagster_tables,
    short_lived_instances,
)
from recon_pipeline_tests.support.plans import plans_kept
from recon_pipeline_tests.support.postgres import PostgresServer, databases_dropped, running_server

if TYPE_CHECKING:
    from dagster import DagsterInstance

_OURS = ("RECON_", "DAGSTER_", "PG")
_OF_THE_TESTS = "RECON_TEST_"
_OURS_EXACTLY = frozenset({"DATABASE_URL", "CRON_SECRET", "FORWARDED_ALLOW_IPS", "SPARK_REMOTE"})
_ENVIRONMENT = pytest.StashKey[Mapping[str, str]]()

# A worker of pytest-xdist has a width. The console of commands would keep it from its import on, whatever a test sets.
for _size in ("COLUMNS", "LINES"):
    os.environ.pop(_size, None)


def pytest_configure(config: pytest.Config) -> None:
    """Remember the environment pytest was started with: `postgres_server` asks it for a server."""
    config.stash[_ENVIRONMENT] = dict(os.environ)
    # A process of pytest-xdist ignores SIGINT. Dagster treats SIGTERM like it, and all that is started from there on
    # would outlive its end.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long, go on with those of many tests, and keep each file's tests together.

    Else all processes but one end early, and wait for the one that has just begun the browser.
    """
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.get_closest_marker("long") is None, -tests[item.path], item.path))


@pytest.fixture(scope="session", autouse=True)
def clean_environment() -> Iterator[None]:
    """Take away every variable that the product, Dagster or libpq would read."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if (name.startswith(_OURS) and not name.startswith(_OF_THE_TESTS)) or name in _OURS_EXACTLY:
                patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config, clean_environment: None) -> Iterator[PostgresServer]:
    """The session's server: `DATABASE_URL`'s, else one of `RECON_TEST_POSTGRES` (15, 16 or 18)."""
    with running_server(pytestconfig.stash[_ENVIRONMENT]) as server:
        yield server


@pytest.fixture(scope="session", autouse=True)
def quick_dagster(clean_environment: None) -> Iterator[None]:
    """What this process asks of Dagster costs little, and is of the months that are known by default."""
    # They are fixed when the definitions are loaded: not by a test that happens to come first, and sets another start.
    import recon_pipeline.definitions  # noqa: F401

    with connections_kept(), short_lived_instances(), plans_kept():
        yield


@pytest.fixture(autouse=True)
def databases_of_one_test() -> Iterator[None]:
    """Drop the databases of a test after it; those of fixtures of a wider scope are made before."""
    with databases_dropped():
        yield


@pytest.fixture
def create_database(postgres_server: PostgresServer) -> Callable[..., str]:
    """`create_database(template=None)` gives a fresh database's plain URL; see `postgres_server.template`."""
    return postgres_server.create_database


@pytest.fixture
def empty_database_url(postgres_server: PostgresServer) -> str:
    """The plain URL of a fresh, empty database."""
    return postgres_server.create_database()


@pytest.fixture
def billing_database_url(postgres_server: PostgresServer) -> str:
    """The plain URL of a fresh database that holds the application's billing tables and recorder."""
    return postgres_server.create_database(postgres_server.template("billing", _make_billing_tables))


@pytest.fixture
def dagster_database_url(postgres_server: PostgresServer) -> str:
    """The plain URL of a fresh database that holds Dagster's tables and nothing in them."""
    return postgres_server.create_database(postgres_server.template("dagster", make_dagster_tables))


@pytest.fixture
def dagster_instance(
    dagster_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator["DagsterInstance"]:
    """A real instance with the repository's `dagster.yaml`, in a database and a `DAGSTER_HOME` of its own.

    Its environment is set too, so that processes started by the test find the same instance.
    """
    monkeypatch.setenv("DAGSTER_PG_URL", dagster_database_url)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster_home"))
    with instance_in(tmp_path / "dagster_home") as instance:
        yield instance


def _make_billing_tables(url: str) -> None:
    statements = (resources.files("recon_pipeline.store.log") / "billing_tables.sql").read_bytes()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statements)
