"""Which engine counts a lake: what the variables say, and what is said where the engine is not there."""

import socket
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pydantic
import pytest

from recon_pipeline.assets.lake_engine import LakeEngine
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.faces.benchmark.lake import engines_here
from recon_pipeline.lake.duckdb_engine import duckdb_engine
from recon_pipeline.lake.engine_settings import EngineSettings, read_engine_settings
from recon_pipeline.lake.spark_engine import require_seen
from recon_pipeline.lake.spark_errors import reason_of
from recon_pipeline.sources.finding import find_files
from recon_pipeline_tests.lake.lakes import MAY, table, write
from recon_pipeline_tests.lake.test_a_lake_that_fails import NOTHING, refused
from recon_pipeline_tests.lake.test_counting_a_lake import fill
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.support.spark import NEEDS_PYSPARK


@pytest.fixture
def nobody() -> str:
    """An address on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of Java whose program ends at once, as that of a wrong version does."""
    program = tmp_path / "java" / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho this Java is too old >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "java"))
    return tmp_path / "java"


@pytest.fixture
def by_spark(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lake that Spark is to count."""
    fill(lake)
    monkeypatch.setenv("RECON_LAKE_ENGINE", "spark")
    monkeypatch.setenv("RECON_SPARK_MASTER", "local[1]")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"RECON_LAKE_ENGINE": "polars"}, "RECON_LAKE_ENGINE is 'polars', which is no engine that counts a lake."),
        (
            {"RECON_LAKE_ENGINE": "spark"},
            "RECON_LAKE_ENGINE is spark, but neither RECON_SPARK_MASTER nor SPARK_REMOTE says where Spark is.",
        ),
        (
            {"RECON_LAKE_ENGINE": "spark", "RECON_SPARK_MASTER": "yarn", "SPARK_REMOTE": "sc://host"},
            "RECON_SPARK_MASTER and SPARK_REMOTE are both set, and each names another Spark.",
        ),
        (
            {"RECON_LAKE_ENGINE": "spark", "SPARK_REMOTE": "host:15002"},
            "SPARK_REMOTE names no server of Spark Connect.",
        ),
        (
            {"RECON_LAKE_ENGINE": "spark", "RECON_SPARK_MASTER": "yarn", "RECON_LAKE_MEMORY_MB": "511"},
            "RECON_LAKE_MEMORY_MB is '511', which is not a whole number from 512 to 1,048,576.",
        ),
    ],
)
def test_variables_that_name_no_engine_are_refused_with_what_to_set(variables: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError) as wrong:
        read_engine_settings(variables)
    assert (wrong.value.what, wrong.value.changed) == (said, NOTHING)


def test_duckdb_counts_unless_the_environment_or_the_resource_names_spark(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARK_REMOTE", "sc://host:15002/;token=secret")
    assert LakeEngine().lake().engine == EngineSettings()
    monkeypatch.setenv("RECON_LAKE_ENGINE", "spark")
    by_connect = LakeEngine(memory_mb=512).lake().engine
    assert (by_connect.name, by_connect.memory_mb, by_connect.spark_place) == ("spark", 512, "sc://host:15002")
    monkeypatch.delenv("SPARK_REMOTE")
    assert LakeEngine(spark_master="local[2]").lake().engine.spark_place == "local[2]"
    with pytest.raises(pydantic.ValidationError, match="duckdb"):
        LakeEngine(engine="polars")


@pytest.mark.parametrize(
    ("per_second", "number", "microseconds"),
    [
        (1, 1_746_057_600, 0), (10**3, 1_746_057_600_001, 1_000), (10**6, 1_746_057_600_000_001, 1),
        (10**9, 1_746_057_600_000_001_999, 1), (10**9, 1_746_057_599_999_999_999, -1),
    ],
)  # fmt: skip
def test_numbers_as_times_keep_the_microsecond(per_second: int, number: int, microseconds: int) -> None:
    with duckdb_engine(512) as engine:
        rows: Any = engine.read_stream(lambda: pa.table({"number": [number]}).to_reader())
        with engine.run(rows.select(time=engine.since_1970(rows.number, per_second))) as batches:
            (row,) = batches.read_all().to_pylist()
    assert row["time"] == MAY + timedelta(microseconds=microseconds)


@pytest.mark.usefixtures("by_spark")
def test_pyspark_that_is_not_installed_is_named_with_its_extra(
    job_billing: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("ibis.backends.pyspark")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyspark", None)
    assert str(refused(job_billing)) == (
        f"Spark is not installed: import of pyspark halted; None in sys.modules.\n{NOTHING}\n"
        "What to do: Install it where this runs: uv pip install 'recon-pipeline[spark]'."
    )
    monkeypatch.setattr("recon_pipeline.faces.benchmark.lake.find_spec", lambda _name: None)
    assert [one.name for one in engines_here()] == ["duckdb"]


@NEEDS_PYSPARK
@pytest.mark.usefixtures("by_spark")
def test_java_that_is_missing_or_does_not_start_is_named_with_what_to_install(
    job_billing: Billing, java: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install = (
        "Install Java 17 or 21 where this runs (Debian: apt-get install openjdk-17-jre-headless), and let JAVA_HOME "
        "name its folder; or use a Spark that runs elsewhere, by SPARK_REMOTE."
    )
    too_old = refused(job_billing)
    assert too_old.what == (
        "Spark at local[1] did not start: [JAVA_GATEWAY_EXITED] Java gateway process exited before sending its port "
        "number."
    )

    monkeypatch.setenv("JAVA_HOME", f"{java}/nowhere")
    assert str(refused(job_billing)) == (
        f"Java is not installed, and Spark runs in it: JAVA_HOME names {java}/nowhere, in which there is no bin/java.\n"
        f"{NOTHING}\nWhat to do: {install}"
    )
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(java))
    assert str(refused(job_billing)) == (
        f"Java is not installed, and Spark runs in it: there is no java in PATH.\n{NOTHING}\nWhat to do: {install}"
    )


def test_a_file_that_spark_would_leave_out_without_a_word_is_refused(tmp_path: Path) -> None:
    hidden = (write(tmp_path, []) / "part-0.parquet").rename(tmp_path / "_part-0.parquet")
    with pytest.raises(ConfigurationError) as found:
        require_seen(find_files(str(hidden)))
    assert str(found.value) == (
        f"{hidden} is hidden from Spark: its name begins with _ or a dot.\n{NOTHING}\n"
        "What to do: Rename it, or set RECON_LAKE_ENGINE=duckdb."
    )


@NEEDS_PYSPARK
@pytest.mark.usefixtures("by_spark", "java")
def test_a_master_or_server_that_does_not_answer_is_named_without_a_token(
    job_billing: Billing, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_SPARK_MASTER", f"spark://{nobody},{nobody}")
    said = f"{nobody}: [Errno 111] Connection refused"
    assert str(refused(job_billing)) == (
        f"Spark at spark://{nobody},{nobody} does not answer: {said}; {said}.\n{NOTHING}\n"
        "What to do: Start it, or correct RECON_SPARK_MASTER; a master names its address on its page."
    )
    monkeypatch.delenv("RECON_SPARK_MASTER")
    monkeypatch.setenv("SPARK_REMOTE", f"sc://{nobody}/;token=secret")
    assert str(refused(job_billing)) == (
        f"Spark at sc://{nobody} does not answer: {said}.\n{NOTHING}\n"
        "What to do: Start it, or correct SPARK_REMOTE; a master names its address on its page."
    )


def test_a_table_with_a_log_of_its_own_is_refused_before_spark_is_started(
    job_billing: Billing, tmp_path: Path, by_spark: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    deltalake.write_deltalake(str(tmp_path / "table"), table([]))
    monkeypatch.setenv("RECON_LAKE", str(tmp_path / "table"))
    monkeypatch.setenv("RECON_SPARK_MASTER", "spark://nobody:1")
    assert str(refused(job_billing)) == (
        "RECON_LAKE is a table with a log of its own (Delta version 0). Spark counts only lakes of Parquet files.\n"
        f"{NOTHING}\nWhat to do: Set RECON_LAKE_ENGINE=duckdb, or write its rows as Parquet files and name their "
        "folder."
    )


def test_want_of_memory_has_the_same_reason_whatever_spark_wraps_it_in() -> None:
    said = {
        "Job aborted.\nCaused by: java.lang.OutOfMemoryError: Java heap space\n\tat org.apache.spark.X",
        "scala.MatchError: java.lang.OutOfMemoryError: Java heap space (of class java.lang.OutOfMemoryError)",
    }
    assert {reason_of(one) for one in said} == {"Java heap space"}
