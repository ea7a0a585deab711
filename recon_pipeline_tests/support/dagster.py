"""Real Dagster instances for tests, configured by the repository's own `dagster.yaml`."""

import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from sqlalchemy import Engine, create_engine

if TYPE_CHECKING:
    from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, SensorEvaluationContext
    from dagster._core.remote_origin import RemoteRepositoryOrigin

DAGSTER_YAML = Path(__file__).resolve().parents[2] / "dagster.yaml"
_KEPT_ENGINES = 4
OUR_LOCATION = "billing_eu"
OTHER_LOCATION = "billing_us"


@contextmanager
def instance_in(home: Path) -> Generator["DagsterInstance"]:
    """An instance whose `DAGSTER_HOME` is that folder; its storage is the one `DAGSTER_PG_URL` names."""
    from dagster import DagsterInstance

    home.mkdir(exist_ok=True)
    shutil.copy(DAGSTER_YAML, home / "dagster.yaml")
    with DagsterInstance.from_config(str(home)) as instance:
        yield instance


@contextmanager
def short_lived_instances() -> Generator[None]:
    """An instance in memory notes no revision of its schema: for that Dagster reads all of its migrations.

    Only a schema that outlives its process is ever migrated.
    """
    with (
        patch("dagster._core.storage.runs.in_memory.stamp_alembic_rev"),
        patch("dagster._core.storage.event_log.in_memory.stamp_alembic_rev"),
    ):
        yield


@contextmanager
def connections_kept() -> Generator[None]:
    """Instances on one database share an engine, with its connections, compiled statements and what tables it has.

    Else a run opens some hundred connections, and each command compiles Dagster's statements anew.
    """
    from dagster_postgres.event_log.event_log import PostgresEventLogStorage

    engines: dict[str, Engine] = {}
    tables: set[tuple[str, str]] = set()
    look_up = PostgresEventLogStorage.has_table

    def engine_of(url: str, *_: Any, **options: Any) -> Engine:
        if url not in engines:
            if len(engines) == _KEPT_ENGINES:
                engines.pop(next(iter(engines))).dispose()
            # Pinged, since a test may stop the server, or fail over to another one.
            engines[url] = create_engine(
                url, isolation_level=options["isolation_level"], max_overflow=20, pool_pre_ping=True
            )
        return engines[url]

    def has_table(storage: PostgresEventLogStorage, name: str) -> bool:
        key = storage.postgres_url, name
        if key not in tables and look_up(storage, name):
            tables.add(key)
        return key in tables

    with ExitStack() as patched:
        for part in ("event_log.event_log", "run_storage.run_storage", "schedule_storage.schedule_storage"):
            patched.enter_context(patch(f"dagster_postgres.{part}.create_pg_engine", engine_of))
        patched.enter_context(patch.object(PostgresEventLogStorage, "has_table", has_table))
        yield
    for engine in engines.values():
        engine.dispose()


def make_dagster_tables(url: str) -> None:
    """Create Dagster's tables in the database, and leave no connection open."""
    from recon_pipeline.automation.dagster_storage import ReconPostgresStorage
    from recon_pipeline.core.database_url import for_dagster

    events: Any = ReconPostgresStorage(for_dagster(url)).event_log_storage
    events._engine.dispose()


def run_in_location(
    instance: "DagsterInstance",
    job: str,
    *,
    location: str = OUR_LOCATION,
    status: "DagsterRunStatus | None" = None,
    assets: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
) -> "DagsterRun":
    """A run as the daemon or the webserver launches it: of a job of that code location."""
    from dagster import AssetKey
    from dagster._core.test_utils import create_run_for_test

    return create_run_for_test(
        instance,
        job,
        status=status,
        tags=tags,
        asset_selection=frozenset(map(AssetKey.from_user_string, assets)) or None,
        remote_job_origin=_repository(location).get_job_origin(job),
    )


def sensor_context(instance: "DagsterInstance", cursor: str | None) -> "SensorEvaluationContext":
    """What the daemon gives a sensor of `OUR_LOCATION`."""
    from dagster import SensorEvaluationContext

    repository = _repository(OUR_LOCATION)
    return SensorEvaluationContext(
        instance_ref=instance.get_ref(),
        last_tick_completion_time=None,
        last_run_key=None,
        cursor=cursor,
        repository_name=repository.repository_name,
        instance=instance,
        sensor_name="alerts",
        code_location_origin=repository.code_location_origin,
    )


def _repository(location: str) -> "RemoteRepositoryOrigin":
    from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin

    return RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(location), "__repository__")
