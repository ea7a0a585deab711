"""Errors of Spark in the three parts that a person needs, with its reason in one line and no stack traces."""

import re
from collections.abc import Generator
from contextlib import contextmanager

from recon_pipeline.core.errors import ReconError
from recon_pipeline.lake.engine_settings import EngineSettings
from recon_pipeline.lake.files import NOTHING_COUNTED

# 52 is what an executor ends with that has no memory.
_MEMORY = re.compile(r"OutOfMemory|UNABLE_TO_ACQUIRE_MEMORY|\bcode (?:52|137)\b|spark\.driver\.maxResultSize")
_CLASS = re.compile(r"^[\w$.]+\.[\w$]+(?:Exception|Error): ")
# What Scala says of an error that it did not expect, as Spark's own code does of want of memory.
_UNMATCHED = re.compile(r"^scala\.MatchError: (.+) \(of class [\w$.]+\)$")
_OF_TYPES = re.compile(r"CANNOT_MERGE_|PARQUET_TYPE_")
_NO_FILE_SYSTEM = re.compile(r"No FileSystem for scheme|S3AFileSystem not found")


@contextmanager
def spark_errors(label: str, settings: EngineSettings) -> Generator[None]:
    """Report what Spark says inside.

    Raises:
        ReconError: With its reason.
    """
    from py4j.protocol import Py4JError  # noqa: PLC0415 - an extra
    from pyspark.errors import PySparkException  # noqa: PLC0415 - an extra

    try:
        yield
    except (PySparkException, Py4JError, OSError) as error:
        said = str(error)
        if _MEMORY.search(said):
            raise ReconError(
                f"{label} needs more memory than it has: {reason_of(said)}",
                changed=NOTHING_COUNTED,
                fix="Give the server of Spark Connect more."
                if settings.spark_remote
                else f"Set RECON_LAKE_MEMORY_MB higher than {settings.memory_mb}: each executor has so much.",
            ) from error
        if _NO_FILE_SYSTEM.search(said):
            raise ReconError(
                f"{label} cannot open the URL of the lake: {reason_of(said)}",
                changed=NOTHING_COUNTED,
                fix="Add to Spark what opens it: for s3a:// hadoop-aws in the version of its Hadoop "
                "(spark.jars.packages in spark-defaults.conf); or set RECON_LAKE_ENGINE=duckdb.",
            ) from error
        if _OF_TYPES.search(said):
            raise ReconError(
                f"{label} cannot read the types of the lake: {reason_of(said)}",
                changed=NOTHING_COUNTED,
                fix="Write each column in one type in all files, and times in microseconds, with the program that "
                "writes the lake; or set RECON_LAKE_ENGINE=duckdb.",
            ) from error
        raise ReconError(
            f"{label} cannot count the lake: {reason_of(said)}",
            changed=NOTHING_COUNTED,
            fix="If a file is named, check that it is whole, and readable where Spark's executors are; else run this "
            "again.",
        ) from error


def reason_of(said: str) -> str:
    """The reason in a message of Spark's, in one line: the innermost cause, without the name of its class."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith("\tat ")]
    causes = [line for line in lines if line.startswith("Caused by: ")]
    first = next((line for line in lines if not line.startswith("An error occurred while calling")), said)
    reason = (causes or [first])[-1].removeprefix("Caused by: ").removeprefix(": ")
    return _CLASS.sub("", _UNMATCHED.sub(r"\1", reason))
