"""Real Dagster instances for tests, configured by the repository's own `dagster.yaml`."""

import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, SensorEvaluationContext
    from dagster._core.remote_origin import RemoteRepositoryOrigin

DAGSTER_YAML = Path(__file__).resolve().parents[2] / "dagster.yaml"
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
def connections_kept() -> Generator[None]:
    """Dagster keeps its connections, as it does in its webserver: else it opens some hundred of them for each run."""
    from recon_pipeline.automation.dagster_storage import ReconPostgresStorage

    build = ReconPostgresStorage.__init__

    def build_and_keep(storage: ReconPostgresStorage, *arguments: Any, **options: Any) -> None:
        build(storage, *arguments, **options)
        for part in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
            part.optimize_for_webserver(statement_timeout=0, pool_recycle=3_600, max_overflow=20)

    with patch.object(ReconPostgresStorage, "__init__", build_and_keep):
        yield


def make_dagster_tables(url: str) -> None:
    """Create Dagster's tables in the database."""
    from recon_pipeline.automation.dagster_storage import ReconPostgresStorage
    from recon_pipeline.core.database_url import for_dagster

    storage = ReconPostgresStorage(for_dagster(url))
    storage.event_log_storage.dispose()


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
