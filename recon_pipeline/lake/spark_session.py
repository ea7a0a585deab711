"""A session of Spark: its driver in a Java that this process starts, or behind a server of Spark Connect.

Invariant: a session has what `_SETTINGS` says, whatever the cluster's own defaults are. A session that others opened in
this process goes on as it was: ours is beside it.
"""

import os
import shutil
import signal
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

from recon_pipeline.core.errors import ConfigurationError, ReconError
from recon_pipeline.lake.engine import not_installed
from recon_pipeline.lake.engine_settings import EngineSettings
from recon_pipeline.lake.files import NOTHING_COUNTED
from recon_pipeline.lake.spark_errors import reason_of

_ANSWER_SECONDS = 5
_PORTS = {"spark": 7_077, "sc": 15_002}
_INSTALL_JAVA = (
    "Install Java 17 or 21 where this runs (Debian: apt-get install openjdk-17-jre-headless), and let JAVA_HOME name "
    "its folder; or use a Spark that runs elsewhere, by SPARK_REMOTE."
)
_SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.timestampType": "TIMESTAMP_LTZ",
    "spark.sql.parquet.inferTimestampNTZ.enabled": "true",
    "spark.sql.ansi.enabled": "true",  # a number that does not fit is an error, and not null or another number
    "spark.sql.files.ignoreCorruptFiles": "false",
    "spark.sql.files.ignoreMissingFiles": "false",
    "spark.sql.parquet.mergeSchema": "true",
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "100000",
}


@contextmanager
def spark_session(settings: EngineSettings) -> Generator[Any]:
    """A session of PySpark's, until the end of the block.

    Raises:
        ReconError: PySpark or Java is not installed, or Spark does not answer.
    """
    try:
        import ibis.backends.pyspark  # noqa: F401, PLC0415 - an extra
        from py4j.protocol import Py4JError  # noqa: PLC0415 - an extra
        from pyspark.errors import PySparkException  # noqa: PLC0415 - an extra
        from pyspark.sql import SparkSession  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise not_installed("Spark", "spark", error) from error
    if not settings.spark_remote:
        _require_java()
    _require_answer(settings)
    builder: Any = SparkSession.builder
    theirs = None if settings.spark_remote else SparkSession.getActiveSession()
    try:
        if settings.spark_remote:
            session = builder.remote(settings.spark_remote).create()
        elif theirs is not None:
            session = theirs.newSession()
        else:
            session = _started(builder, settings)
    except (PySparkException, Py4JError, OSError) as error:
        raise ReconError(
            f"Spark at {settings.spark_place} did not start: {reason_of(str(error))}",
            changed=NOTHING_COUNTED,
            fix="Read what it printed. It needs Java 17 or 21, and a master or server of the same version of Spark; "
            "workers must reach this machine, whose address SPARK_LOCAL_IP or spark.driver.host names.",
        ) from error
    try:
        for name, value in _SETTINGS.items():
            session.conf.set(name, value)
        yield session
    finally:
        if theirs is None:
            with suppress(Py4JError, OSError):  # its Java may be what failed
                session.stop()


def _started(builder: Any, settings: EngineSettings) -> Any:
    """A session with a driver of its own; what PySpark does with Ctrl-C is undone, since Dagster needs its own."""
    memory = f"{settings.memory_mb}m"
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        return (
            builder.master(settings.spark_master)
            .appName("recon count-lake")
            .config("spark.driver.memory", memory)
            .config("spark.executor.memory", memory)
            .config("spark.driver.maxResultSize", memory)
            .config("spark.ui.showConsoleProgress", "false")
            .getOrCreate()
        )
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, on_interrupt)


def _require_java() -> None:
    home = os.environ.get("JAVA_HOME")
    if shutil.which(f"{home}/bin/java" if home else "java") is None:
        where = f"JAVA_HOME names {home}, in which there is no bin/java" if home else "there is no java in PATH"
        raise ConfigurationError(
            f"Java is not installed, and Spark runs in it: {where}.", changed=NOTHING_COUNTED, fix=_INSTALL_JAVA
        )


def _require_answer(settings: EngineSettings) -> None:
    """Refuse a master or server that is not there: Spark itself would try for a minute, or for ever."""
    scheme, _, addresses = settings.spark_place.partition("://")
    if scheme not in _PORTS:
        return
    said: list[str] = []
    for address in addresses.split(","):
        host, _, port = address.partition(":")
        try:
            socket.create_connection((host, int(port or _PORTS[scheme])), timeout=_ANSWER_SECONDS).close()
        except (OSError, ValueError) as error:
            said.append(f"{address}: {error}")
        else:
            return
    raise ReconError(
        f"Spark at {settings.spark_place} does not answer: {'; '.join(said)}.",
        changed=NOTHING_COUNTED,
        fix=f"Start it, or correct {'SPARK_REMOTE' if settings.spark_remote else 'RECON_SPARK_MASTER'}; a master names "
        "its address on its page.",
    )
