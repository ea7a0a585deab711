"""The engine that the settings name, opened."""

from collections.abc import Generator
from contextlib import contextmanager

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.lake.duckdb_engine import duckdb_engine
from recon_pipeline.lake.engine import Engine
from recon_pipeline.lake.engine_settings import DUCKDB, EngineSettings
from recon_pipeline.lake.files import NOTHING_COUNTED
from recon_pipeline.lake.spark_engine import spark_engine


@contextmanager
def open_engine(settings: EngineSettings) -> Generator[Engine]:
    """The engine, open until the end of the block.

    Raises:
        ReconError: It is not installed, or cannot be started or reached.
    """
    opened = duckdb_engine(settings.memory_mb) if settings.name == DUCKDB else spark_engine(settings)
    with opened as engine:
        yield engine


def require_duckdb(settings: EngineSettings, table: str) -> None:
    """Refuse to count a table with a log of its own by another engine, before that is started.

    Raises:
        ConfigurationError: The settings name another.
    """
    if settings.name != DUCKDB:
        raise ConfigurationError(
            f"RECON_LAKE is a table with a log of its own ({table}). Spark counts only lakes of Parquet files.",
            changed=NOTHING_COUNTED,
            fix=f"Set RECON_LAKE_ENGINE={DUCKDB}, or write its rows as Parquet files and name their folder.",
        )
