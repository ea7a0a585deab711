"""Where Dagster keeps its records and files, named by `dagster.yaml`.

Every process of Dagster (webserver, daemon, code server, each run) gets these classes' names and reads its own
environment, so that all find the same storage and no URL with a password is written down or passed on a command line.
The billing database is never taken for Dagster's records unless `DAGSTER_PG_URL` says so.
"""

import contextlib
import os
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Self

from dagster import Field, Int
from dagster._config.config_schema import UserConfigSchema
from dagster._core.storage.compute_log_manager import CapturedLogContext
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage

from recon_pipeline.core.database_url import DatabaseUrlError, for_dagster
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.embedded_postgres import ensure_running, project_folder

EMBEDDED_DATABASE = "dagster"
"""Dagster's database on the embedded server."""

_EXAMPLE = "DAGSTER_PG_URL=postgresql://user:password@host:5432/dagster"
_DAY_SECONDS = 86_400


def dagster_storage_url(environ: Mapping[str, str] = os.environ) -> str:
    """The SQLAlchemy URL of Dagster's records, from `DAGSTER_PG_URL`, or on the embedded server, which is started.

    Raises:
        ConfigurationError: `DAGSTER_PG_URL` is no Postgres URL, or is missing while `DATABASE_URL` is set.
        EmbeddedPostgresError: The embedded server cannot run.
    """
    url = environ.get("DAGSTER_PG_URL")
    if url:
        try:
            return for_dagster(url)
        except DatabaseUrlError as error:
            raise ConfigurationError(
                f"DAGSTER_PG_URL cannot be used: {error}.", mend=f"Set it like {_EXAMPLE}."
            ) from None
    if environ.get("DATABASE_URL"):
        raise ConfigurationError(
            "DATABASE_URL is set and DAGSTER_PG_URL is not: Dagster has no database for its run history.",
            mend=f"Set it like {_EXAMPLE}, a database of its own (create it empty; it may be on the same server). "
            "Unset both to use the embedded Postgres.",
        )
    return for_dagster(ensure_running(keep_running=True).ensure_database(EMBEDDED_DATABASE))


class ReconPostgresStorage(DagsterPostgresStorage):
    """Dagster's storage on Postgres, at `dagster_storage_url()`; it takes no configuration."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Nothing: what differs between installations is in the environment."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, object]) -> Self:
        """Called in every process of Dagster with what `dagster.yaml` says.

        Raises:
            ConfigurationError: The environment does not name a database.
        """
        return cls(dagster_storage_url(), inst_data=inst_data)

    @property
    def run_storage_data(self) -> ConfigurableClassData | None:
        """None: the parts cannot be made again on their own, since the URL is not in the configuration."""
        return None

    event_storage_data = run_storage_data
    schedule_storage_data = run_storage_data


class ReconArtifactStorage(LocalArtifactStorage):
    """Dagster's files in `.recon/dagster`, wherever the process was started."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Nothing."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, object]) -> Self:
        """Called in every process of Dagster."""
        return cls(str(_dagster_folder()), inst_data=inst_data)


class ReconComputeLogManager(LocalComputeLogManager):
    """What runs and ticks print, in `.recon/dagster/logs`; removed when it is old, since Dagster never does."""

    def __init__(self, base_dir: str, keep_days: int, inst_data: ConfigurableClassData | None = None) -> None:
        """Keep files for `keep_days` days after they were last written."""
        super().__init__(base_dir, inst_data=inst_data)
        self._folder = Path(base_dir)
        self._keep_seconds = keep_days * _DAY_SECONDS

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """`keep_days`, how long a log is kept."""
        return {"keep_days": Field(Int)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, int]) -> Self:
        """Called in every process of Dagster with what `dagster.yaml` says."""
        return cls(str(_dagster_folder() / "logs"), config_value["keep_days"], inst_data=inst_data)

    @contextlib.contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Generator[CapturedLogContext]:
        """Capture as ever; the first run of a day removes what is too old."""
        self._remove_old_logs(time.time())
        with super().capture_logs(log_key) as context:
            yield context

    def _remove_old_logs(self, now: float) -> None:
        last_removal = self._folder / ".last-removal"
        if last_removal.exists() and now - last_removal.stat().st_mtime < _DAY_SECONDS:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        last_removal.touch()
        for folder, _, files in os.walk(self._folder, topdown=False):
            # Another run may remove the same file, or write into the same folder.
            for path in (Path(folder) / name for name in files):
                with contextlib.suppress(FileNotFoundError):
                    if now - path.stat().st_mtime > self._keep_seconds:
                        path.unlink()
            if Path(folder) != self._folder:
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()


def _dagster_folder() -> Path:
    return Path(os.environ.get("DAGSTER_HOME") or project_folder()) / ".recon" / "dagster"
