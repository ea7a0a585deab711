"""A real standalone cluster of Spark on loopback: a master and two workers, each a process of its own."""

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from recon_pipeline_tests.reconciliation.traffic import wait_until

MEMORY_MB = 512
"""Of the driver and of each executor: the least that Spark starts with."""

_DEFAULTS = """
spark.ui.enabled                        false
spark.sql.shuffle.partitions            2
spark.task.maxFailures                  1
"""
_QUIET = """
rootLogger.level = warn
rootLogger.appenderRef.stderr.ref = stderr
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = %d{HH:mm:ss} %p %c{1}: %m%n
logger.master.name = org.apache.spark.deploy.master
logger.master.level = info
logger.worker.name = org.apache.spark.deploy.worker
logger.worker.level = info
logger.util.name = org.apache.spark.util.Utils
logger.util.level = error
"""


_ON_LOOPBACK = ("--host", "127.0.0.1", "--port", "0", "--webui-port", "0")


NEEDS_PYSPARK = pytest.mark.skipif(
    find_spec("pyspark") is None, reason="PySpark is not installed: uv sync --extra spark"
)


def java_home() -> str | None:
    """The Java that Spark runs in: Debian's 17, else what is there."""
    debian = sorted(Path("/usr/lib/jvm").glob("java-17-openjdk-*"))
    found = shutil.which("java")
    return str(debian[0]) if debian else os.environ.get("JAVA_HOME") or (found and str(Path(found).parents[1]))


def _is_executor(process: psutil.Process) -> bool:
    """Whether it runs for Spark, and has not ended meanwhile."""
    try:
        return "org.apache.spark.executor.CoarseGrainedExecutorBackend" in process.cmdline()
    except psutil.NoSuchProcess:  # or a zombie, which is one
        return False


class SparkCluster:
    """A master and workers; made by `spark_cluster`."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._folder = folder
        self._environ = environ
        self._started: list[subprocess.Popen[bytes]] = []
        _, log = self._start("master.Master", *_ON_LOOPBACK)
        self.url = _said(log, r"Starting Spark master at (spark://\S+)")
        # With one core and the memory for one executor each.
        memory, folders = ("--cores", "1", "--memory", f"{MEMORY_MB}m"), (str(folder / "a"), str(folder / "b"))
        of_each = [self._start("worker.Worker", *_ON_LOOPBACK, *memory, "--work-dir", own, self.url) for own in folders]
        for _, log in of_each:
            _said(log, r"(Successfully registered with master)")
        self.workers = [process for process, _ in of_each]

    def executors(self) -> list[psutil.Process]:
        """Those of the workers that are left, of the last one last."""
        started = [one for worker in self.workers for one in psutil.Process(worker.pid).children(recursive=True)]
        return [one for one in started if _is_executor(one)]

    def kill_worker(self) -> None:
        """Kill the last one, and its executors with it, as when a machine is gone."""
        _kill(self.workers.pop())

    def connect_server(self) -> str:
        """Start a server of Spark Connect, by itself beside the cluster; its URL."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address: tuple[str, int] = free.getsockname()
        self._start(
            "SparkSubmit", "--master", "local[1]", "--conf", f"spark.connect.grpc.binding.address={address[0]}",
            "--conf", f"spark.connect.grpc.binding.port={address[1]}",
            "--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal",
        )  # fmt: skip

        def answers() -> bool:
            with socket.socket() as asked:
                return asked.connect_ex(address) == 0

        wait_until(answers, seconds=120)
        return f"sc://{address[0]}:{address[1]}"

    def close(self) -> None:
        """End what was started here."""
        for process in reversed(self._started):
            if process.poll() is None:
                _kill(process)

    def _start(self, kind: str, *arguments: str) -> tuple[subprocess.Popen[bytes], Path]:
        import pyspark

        log = self._folder / f"{len(self._started)}.log"
        program = str(Path(pyspark.__file__).parent / "bin" / "spark-class")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [program, f"org.apache.spark.deploy.{kind}", *arguments],
                env=self._environ,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._started.append(process)
        return process, log


def _said(log: Path, wanted: str) -> str:
    wait_until(lambda: re.search(wanted, log.read_text()) is not None, seconds=120)
    (found,) = re.findall(wanted, log.read_text())
    return found


def _kill(process: subprocess.Popen[bytes]) -> None:
    for one in (*psutil.Process(process.pid).children(recursive=True), process):
        one.send_signal(signal.SIGKILL)
    process.wait(timeout=30)


@contextmanager
def spark_cluster(folder: Path, java: str) -> Iterator[SparkCluster]:
    """A master and two workers, until the end of the block; this process's Spark is set up to use them.

    Args:
        folder: For logs, settings and what workers write.
        java: The folder of Java.
    """
    (folder / "spark-defaults.conf").write_text(_DEFAULTS)
    (folder / "log4j2.properties").write_text(_QUIET)
    ours = {
        "JAVA_HOME": java,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_CONF_DIR": str(folder),
        # None of these processes lives long enough for code that is compiled well.
        "JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ours.items():
            patch.setenv(name, value)
        cluster = SparkCluster(folder, {**os.environ, "SPARK_DAEMON_MEMORY": f"{MEMORY_MB}m"})
        try:
            yield cluster
        finally:
            cluster.close()
