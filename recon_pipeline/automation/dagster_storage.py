"""Where Dagster keeps its records and files, named by `dagster.yaml`.

Every process of Dagster (webserver, daemon, code server, each run) gets these classes' names and reads its
own environment, so that all find the same storage and no URL with a password is stored or passed on a command
line. The billing database is used for Dagster's records only if `DAGSTER_PG_URL` says so.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from shutil import copyfileobj
from typing import Self, TextIO

from dagster import Field, Int
from dagster._config.config_schema import UserConfigSchema
from dagster._core.execution.compute_logs import redirect_to_file
from dagster._core.storage.compute_log_manager import CapturedLogContext, ComputeIOType
from dagster._core.storage.local_compute_log_manager import IO_TYPE_EXTENSION, LocalComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage
from dagster._serdes import ConfigurableClassData
from dagster._utils import ensure_file
from dagster_postgres import DagsterPostgresStorage

from recon_pipeline.automation.dagster_url import dagster_url, files_folder
from recon_pipeline.core.database_url import for_dagster
from recon_pipeline.embedded_postgres import project_folder

_DAY_SECONDS = 86_400
_SHOW_EVERY_SECONDS = 0.2


class ReconPostgresStorage(DagsterPostgresStorage):
    """Dagster's storage on Postgres, at `dagster_url()`; it takes no configuration."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Nothing: the environment configures the storage."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, object]) -> Self:
        """Called in every process of Dagster with the values of `dagster.yaml`.

        Raises:
            ConfigurationError: The environment does not name a database.
        """
        # Dagster writes timestamps without a zone in the session's time zone and reads them as UTC: in another zone
        # new runs would seem hours old, and run monitoring would fail them as never started.
        os.environ["PGTZ"] = "UTC"
        return cls(for_dagster(dagster_url()), inst_data=inst_data)

    @property
    def run_storage_data(self) -> ConfigurableClassData | None:
        """None: the parts cannot be created separately, because the URL is not in the configuration."""
        return None

    @property
    def event_storage_data(self) -> ConfigurableClassData | None:
        """None, for the same reason."""
        return None

    @property
    def schedule_storage_data(self) -> ConfigurableClassData | None:
        """None, for the same reason."""
        return None


class ReconArtifactStorage(LocalArtifactStorage):
    """Dagster's files in `.recon/dagster`, in whatever folder the process was started."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Nothing."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, object]) -> Self:
        """Called in every process of Dagster."""
        return cls(str(_dagster_folder()), inst_data=inst_data)


class ReconComputeLogManager(LocalComputeLogManager):
    """The output of runs and ticks, in `.recon/dagster/logs`. Removes old files, because Dagster never does."""

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
        """Capture into files, and show what is captured; the first run of a day removes old files.

        Dagster's own way starts a `tail` and a Python process to watch it, for each of the two streams of each step.
        """
        self._remove_old_logs(time.time())
        with contextlib.ExitStack() as captured:
            for stream, kind in ((sys.stdout, ComputeIOType.STDOUT), (sys.stderr, ComputeIOType.STDERR)):
                path = self.get_captured_local_path(log_key, IO_TYPE_EXTENSION[kind])
                captured.enter_context(_captured(stream, Path(path)))
            yield CapturedLogContext(log_key)
        Path(self.complete_artifact_path(log_key)).touch()

    def _remove_old_logs(self, now: float) -> None:
        last_removal = self._folder / ".last-removal"
        if last_removal.exists() and now - last_removal.stat().st_mtime < _DAY_SECONDS:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        last_removal.touch()
        # Deepest first, with every age taken before the first removal, which makes a folder look new.
        found = [
            (path, path.stat().st_mtime) for path in sorted(self._folder.rglob("*"), reverse=True) if path.exists()
        ]
        for path, modified in found:
            if now - modified <= self._keep_seconds:
                continue
            # Another run may remove the same, and a folder may contain newer files.
            with contextlib.suppress(OSError):
                if path.is_dir():
                    path.rmdir()
                else:
                    path.unlink()


@contextlib.contextmanager
def _captured(stream: TextIO, path: Path) -> Generator[None]:
    """Write a stream of this process to a file, and show it on the stream too, by a thread."""
    ensure_file(str(path))
    shown = path.stat().st_size
    with contextlib.ExitStack() as stack:
        try:
            own = stack.enter_context(os.fdopen(os.dup(stream.fileno()), "wb", buffering=0))
        except (OSError, ValueError):  # a stream without a file, as in a test or a detached process
            yield
            return
        file = stack.enter_context(path.open("rb"))
        file.seek(shown)
        ended = threading.Event()

        def show() -> None:
            with contextlib.suppress(OSError):  # nobody reads the stream any more; the file is whole all the same
                while not ended.wait(_SHOW_EVERY_SECONDS):
                    copyfileobj(file, own)
                copyfileobj(file, own)

        shows = threading.Thread(target=show, daemon=True)
        shows.start()
        try:
            with redirect_to_file(stream, str(path)):
                yield
        finally:
            ended.set()
            shows.join()


def _dagster_folder() -> Path:
    return files_folder(Path(os.environ.get("DAGSTER_HOME") or project_folder()))
