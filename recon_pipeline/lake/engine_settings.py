"""Which engine counts a lake, and with how much memory: `RECON_LAKE_ENGINE` and the variables beside it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from recon_pipeline.lake.files import uncountable

DUCKDB, SPARK = "duckdb", "spark"

DEFAULT_MEMORY_MB = 2_048
"""Half of 4 GB: the other half is for Python, Arrow and what an engine does not count."""

_LEAST_MB, _LEAST_SPARK_MB, _MOST_MB = 256, 512, 1_048_576


@dataclass(frozen=True)
class EngineSettings:
    """The settings of the engine that counts a lake.

    Attributes:
        name: `duckdb` or `spark`.
        memory_mb: What it may hold in memory; Spark: its driver, and each of its executors.
        spark_master: Spark's master, whose driver is then in this process; or ''.
        spark_remote: A server of Spark Connect; or ''. It may hold a token.
    """

    name: str = DUCKDB
    memory_mb: int = DEFAULT_MEMORY_MB
    spark_master: str = ""
    spark_remote: str = ""

    @property
    def spark_place(self) -> str:
        """Where Spark is, without a token."""
        if self.spark_master:
            return self.spark_master
        named = urlsplit(self.spark_remote)
        return f"{named.scheme}://{named.netloc.rpartition('@')[2]}"


def read_engine_settings(environ: Mapping[str, str] = os.environ) -> EngineSettings:
    """Read and check the variables of the engine.

    Raises:
        ConfigurationError: One is missing, or cannot be used.
    """
    name = environ.get("RECON_LAKE_ENGINE") or DUCKDB
    if name not in (DUCKDB, SPARK):
        raise uncountable(
            f"RECON_LAKE_ENGINE is {name!r}, which is no engine that counts a lake.",
            fix=f"Set it to {DUCKDB} or {SPARK}, or unset it for {DUCKDB}.",
        )
    if name == DUCKDB:
        return EngineSettings(name, _memory_mb(environ, _LEAST_MB))
    master, remote = environ.get("RECON_SPARK_MASTER", ""), environ.get("SPARK_REMOTE", "")
    if not (master or remote):
        raise uncountable(
            "RECON_LAKE_ENGINE is spark, but neither RECON_SPARK_MASTER nor SPARK_REMOTE says where Spark is.",
            fix="Set RECON_SPARK_MASTER like spark://host:7077, or local[4] for this machine alone; "
            "or, for Spark Connect, SPARK_REMOTE like sc://host:15002.",
        )
    if master and remote:
        raise uncountable(
            "RECON_SPARK_MASTER and SPARK_REMOTE are both set, and each names another Spark.",
            fix="Unset one of them.",
        )
    if remote and not remote.startswith("sc://"):
        raise uncountable(
            "SPARK_REMOTE names no server of Spark Connect.", fix="Set it like SPARK_REMOTE=sc://host:15002."
        )
    return EngineSettings(name, _memory_mb(environ, _LEAST_SPARK_MB), master, remote)


def _memory_mb(environ: Mapping[str, str], least: int) -> int:
    text = environ.get("RECON_LAKE_MEMORY_MB", str(DEFAULT_MEMORY_MB))
    if not (text.isascii() and text.isdigit() and least <= int(text) <= _MOST_MB):
        raise uncountable(
            f"RECON_LAKE_MEMORY_MB is {text!r}, which is not a whole number from {least} to {_MOST_MB:,}.",
            fix=f"Set it like RECON_LAKE_MEMORY_MB={DEFAULT_MEMORY_MB}, or unset it for that default.",
        )
    return int(text)
