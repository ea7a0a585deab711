"""The engine that counts a lake as a resource of Dagster: DuckDB or Spark.

Invariant: a field that is not set has the value of its environment variable, read at each use; the same code checks
both. SPARK_REMOTE is no field: it may hold a token, and Dagster shows and stores what a resource is configured with.
"""

import os
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

if TYPE_CHECKING:
    from recon_pipeline.lake.settings import LakeSettings


class LakeEngine(dg.ConfigurableResource[Any]):
    """Which engine counts the lake of one installation, where it is, and how much memory it may use."""

    engine: str | None = Field(
        default=None, pattern="^(duckdb|spark)$", description="duckdb or spark. Unset: what RECON_LAKE_ENGINE says."
    )
    memory_mb: int | None = Field(
        default=None,
        ge=256,
        description="What DuckDB may hold in memory, or Spark's driver and each of its executors. Unset: what "
        "RECON_LAKE_MEMORY_MB says.",
    )
    spark_master: str | None = Field(
        default=None, description="Like spark://host:7077. Unset: what RECON_SPARK_MASTER or SPARK_REMOTE says."
    )

    def lake(self) -> "LakeSettings":
        """The lake that the environment names, with this engine.

        Raises:
            ConfigurationError: A value cannot be used, or is not set.
        """
        from recon_pipeline.lake.settings import read_lake_settings  # noqa: PLC0415 - it loads fsspec

        fields = {
            "RECON_LAKE_ENGINE": self.engine,
            "RECON_LAKE_MEMORY_MB": self.memory_mb,
            "RECON_SPARK_MASTER": self.spark_master,
        }
        return read_lake_settings(
            {**os.environ, **{name: str(value) for name, value in fields.items() if value is not None}}
        )
