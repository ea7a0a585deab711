"""Real Dagster instances for tests, configured by the repository's own `dagster.yaml`."""

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster import DagsterInstance

DAGSTER_YAML = Path(__file__).resolve().parents[2] / "dagster.yaml"


@contextmanager
def instance_in(home: Path) -> Generator["DagsterInstance"]:
    """An instance whose `DAGSTER_HOME` is that folder; its storage is the one `DAGSTER_PG_URL` names."""
    from dagster import DagsterInstance

    home.mkdir(exist_ok=True)
    shutil.copy(DAGSTER_YAML, home / "dagster.yaml")
    with DagsterInstance.from_config(str(home)) as instance:
        yield instance


def make_dagster_tables(url: str) -> None:
    """Create Dagster's tables in the database."""
    from recon_pipeline.automation.dagster_storage import ReconPostgresStorage
    from recon_pipeline.core.database_url import for_dagster

    storage = ReconPostgresStorage(for_dagster(url))
    storage.event_log_storage.dispose()
