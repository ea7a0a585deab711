"""Spark on a real standalone cluster, a master and two workers: what it counts, and how it fails."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3fs import S3FileSystem

from recon_pipeline.assets.lake_engine import LakeEngine
from recon_pipeline.core.errors import ReconError
from recon_pipeline.definitions import build_definitions
from recon_pipeline.lake import spark_waiting
from recon_pipeline.lake.engine_settings import EngineSettings
from recon_pipeline.lake.spark_engine import Spark, spark_engine
from recon_pipeline.sources.finding import SourceFile, find_files
from recon_pipeline_tests.lake.lakes import Event, model, sums_by, write
from recon_pipeline_tests.lake.test_a_lake_that_fails import NOTHING, refused
from recon_pipeline_tests.lake.test_counting_a_lake import count, fill
from recon_pipeline_tests.lake.test_event_sums import OF_TYPES, counted
from recon_pipeline_tests.lake.test_lake_and_log import hostile, log_sums, written
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.reconciliation.traffic import wait_until
from recon_pipeline_tests.support.assets import run_assets
from recon_pipeline_tests.support.spark import MEMORY_MB, NEEDS_PYSPARK, SparkCluster, java_home, spark_cluster

JAVA = java_home()

pytestmark = [
    pytest.mark.skipif(JAVA is None, reason="Spark runs in Java, which is not installed"),
    NEEDS_PYSPARK,
    pytest.mark.long,
    pytest.mark.timeout(900),  # some ten processes are started, each of which takes seconds of a processor
]
NAMED = "gateway_name: {value: stripe}\ngateway_customer_id: {value: a}\nusage_type: meter\nrequest_id: uid\n"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkCluster]:
    assert JAVA is not None
    with spark_cluster(tmp_path_factory.mktemp("spark"), JAVA) as started:
        yield started


@pytest.fixture
def by_spark(lake: Path, cluster: SparkCluster, monkeypatch: pytest.MonkeyPatch) -> SparkCluster:
    """The lake is counted by the cluster."""
    for name, value in {
        "RECON_LAKE_ENGINE": "spark", "RECON_SPARK_MASTER": cluster.url, "RECON_LAKE_MEMORY_MB": str(MEMORY_MB),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    return cluster


@pytest.fixture(scope="module")
def theirs(cluster: SparkCluster) -> Iterator[Any]:
    """A session that others opened in this process, beside which the product counts: with executors that are there."""
    from pyspark.sql import SparkSession

    builder: Any = SparkSession.builder
    of_others = builder.master(cluster.url).config("spark.executor.memory", f"{MEMORY_MB}m")
    session = of_others.config("spark.sql.session.timeZone", "Asia/Kathmandu").getOrCreate()
    yield session
    session.stop()


def test_a_month_is_counted_by_the_cluster_that_the_resource_names_and_its_counters_are_repaired(
    job_billing: Billing, lake: Path, cluster: SparkCluster, tmp_path: Path
) -> None:
    fill(lake)
    job_billing.add_counter("a", 11)
    engine = LakeEngine(engine="spark", memory_mb=MEMORY_MB, spark_master=cluster.url)
    job = build_definitions(engine=engine).resolve_job_def("count_lake")
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        ended = job.execute_in_process(instance=instance, partition_key="2025-05")
    (made,) = ended.asset_materializations_for_node("lake_event_sums")
    assert str(made.metadata["engine"].value).startswith("Spark 4.0.")
    (recorded,) = job_billing.query(
        "select engine, event_count, usage_count, dedupe_count, source from recon.lake_count"
    )
    assert recorded.engine == made.metadata["engine"].value
    assert (recorded.event_count, recorded.usage_count, recorded.dedupe_count) == (3, 13, 3)
    assert [Path(one["name"]).name for one in recorded.source["files"]] == ["part-0.parquet", "part-1.parquet"]
    run_assets()
    assert job_billing.counters() == {"a": 10, "b": 3}


def test_both_engines_postgres_and_a_model_add_up_hostile_logs_alike_beside_a_session_of_others(
    job_billing: Billing, cluster: SparkCluster, theirs: Any, tmp_path: Path
) -> None:
    events = hostile(3)
    lake = written(tmp_path / "hostile", events)
    log = log_sums(job_billing, events)
    assert log == model(events)
    assert counted(lake) == log
    with spark_engine(EngineSettings("spark", MEMORY_MB, cluster.url)) as engine:
        assert sums_by(engine, lake) == log
        for number, (quantity, values) in enumerate((OF_TYPES[0], OF_TYPES[3])):
            of_type = [Event(f"req-{place}", value) for place, value in enumerate(values)]
            assert sums_by(engine, write(tmp_path / str(number), of_type, quantity, files=2)) == model(of_type)
    assert theirs.conf.get("spark.sql.session.timeZone") == "Asia/Kathmandu"
    assert theirs.range(3).count() == 3


def test_columns_of_folders_and_odd_names_and_numbers_as_times_are_read_as_duckdb_reads_them(
    job_billing: Billing,
    lake: Path,
    by_spark: SparkCluster,
    theirs: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Past 2^53 nanoseconds, a millionth of a second before and at the beginning of May.
    begins = [1_746_057_600_000_000_000, 1_746_057_600_000_000_999, 1_746_057_599_999_999_999]
    ends = [1_748_736_000_000_000] * 3
    for number, folder in enumerate(("meter=remote_commands/it's [a] *{b}", "meter=sms", "meter=remote_commands")):
        rows = {
            "uid": [f"{number}-{place}" for place in range(3)], "units": pa.array([1, 10, 100], pa.int32()),
            "begins": begins, "ends": ends, "at": [1_746_057_600] * 3, "millis": [1_746_057_600_001] * 3,
        }  # fmt: skip
        (lake / folder).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(rows), lake / folder / "p[0]? %41.parquet")
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(
        NAMED + "quantity: units\nevent_timestamp: {column: at, format: unix_seconds}\n"
        "period_start: {column: begins, format: unix_nanoseconds}\n"
        "period_end: {column: ends, format: unix_microseconds}\n"
    )
    monkeypatch.setenv("RECON_LAKE_MAPPING", str(mapping))
    (by_it,) = count()
    monkeypatch.setenv("RECON_LAKE_ENGINE", "duckdb")
    os.utime(next(lake.rglob("*.parquet")))
    (by_duckdb,) = count()
    assert by_it.count is not None
    assert by_duckdb.count is not None
    assert (by_it.count.usage_count, by_it.count.key_count) == (22, 1)
    assert (by_duckdb.count.usage_count, by_duckdb.count.key_count) == (22, 1)


def test_a_file_that_is_cut_and_a_store_that_spark_has_no_package_for_are_named_with_what_to_do(
    cluster: SparkCluster, theirs: Any, tmp_path: Path
) -> None:
    cut = write(tmp_path, [Event("req-1", 1)]) / "part-0.parquet"
    cut.write_bytes(cut.read_bytes()[:-40])
    stored = SourceFile("s3://bucket/x.parquet", 1, S3FileSystem(anon=True), "bucket/x.parquet")
    with spark_engine(EngineSettings("spark", MEMORY_MB, cluster.url)) as engine:
        with pytest.raises(ReconError) as of_file:
            engine.read_parquet(find_files(str(cut)))
        with pytest.raises(ReconError) as of_store:
            engine.read_parquet([stored])
    assert of_file.value.what.startswith(f"{engine.label} cannot count the lake: ")
    assert str(cut) in of_file.value.what
    assert of_file.value.fix.startswith("If a file is named, check that it is whole, and readable where Spark's ")
    assert of_store.value.what == (
        f"{engine.label} cannot open the URL of the lake: Class org.apache.hadoop.fs.s3a.S3AFileSystem not found"
    )
    assert of_store.value.fix.startswith("Add to Spark what opens it: for s3a:// hadoop-aws ")


def test_types_that_spark_does_not_read_are_said_with_how_to_write_them(
    cluster: SparkCluster, theirs: Any, tmp_path: Path
) -> None:
    write(tmp_path / "mixed", [Event("req-1", 1)], pa.int32())
    write(tmp_path / "mixed" / "later", [Event("req-2", 1)], pa.int64())
    fine = pa.table({"event_timestamp": pa.array([1], pa.timestamp("ns", "UTC"))})
    pq.write_table(fine, tmp_path / "nanoseconds.parquet")
    with spark_engine(EngineSettings("spark", MEMORY_MB, cluster.url)) as engine:
        for lake in (tmp_path / "mixed", tmp_path / "nanoseconds.parquet"):
            with pytest.raises(ReconError) as refused:
                engine.read_parquet(find_files(str(lake)))
            assert refused.value.what.startswith(f"{engine.label} cannot read the types of the lake: ")
            assert refused.value.fix == (
                "Write each column in one type in all files, and times in microseconds, with the program that writes "
                "the lake; or set RECON_LAKE_ENGINE=duckdb."
            )


def test_an_executor_that_runs_out_of_memory_ends_the_count_with_the_limit_to_raise_and_nothing_is_recorded(
    job_billing: Billing, lake: Path, by_spark: SparkCluster, theirs: Any
) -> None:
    write(lake, [Event("x" * 300_000_000, 1, "a")])
    error = refused(job_billing)
    assert error.what.startswith("Spark 4.0.")
    assert error.what.endswith(" needs more memory than it has: Java heap space")
    assert error.fix == f"Set RECON_LAKE_MEMORY_MB higher than {MEMORY_MB}: each executor has so much."


def test_a_server_of_spark_connect_counts_without_java_here(
    job_billing: Billing, lake: Path, cluster: SparkCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake)
    monkeypatch.setenv("RECON_LAKE_ENGINE", "spark")
    monkeypatch.setenv("SPARK_REMOTE", cluster.connect_server())
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    monkeypatch.setenv("SPARK_CONNECT_MODE_ENABLED", "1")  # PySpark sets it for the whole process
    (found,) = count()
    assert found.count is not None
    assert found.count.engine.startswith("Spark 4.0.")
    assert (found.count.event_count, found.count.usage_count) == (3, 13)


def test_a_lost_worker_costs_time_alone_and_without_any_the_count_ends_and_nothing_is_recorded(
    job_billing: Billing, lake: Path, by_spark: SparkCluster, theirs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake)
    context, run = theirs.sparkContext, Spark.run

    def lose_a_worker() -> None:
        """Kill it when nobody else has something left to do."""
        stages: Any = context.statusTracker()

        def is_in_the_middle() -> bool:
            active = [stages.getStageInfo(stage) for stage in stages.getActiveStageIds()]
            return any(one.numActiveTasks == 1 for one in active if one)

        wait_until(is_in_the_middle, seconds=60)
        by_spark.kill_worker()

    def run_and_lose(engine: Spark, expression: Any) -> Any:
        if "gateway_customer_id" not in expression.columns:  # events in no month, not the sums
            return run(engine, expression)
        by_spark.executors()[-1].suspend()
        threading.Thread(target=lose_a_worker, daemon=True).start()
        return run(engine, expression)

    monkeypatch.setattr(Spark, "run", run_and_lose)
    wait_until(lambda: len(by_spark.executors()) == 2, seconds=60)
    (found,) = count()
    assert found.count is not None
    assert (found.count.event_count, found.count.usage_count) == (3, 13)

    monkeypatch.setattr(spark_waiting, "PATIENCE_SECONDS", 1.0)
    write(lake / "month=2025-05" / "late", [Event("req-9", 100, "a")])
    assert str(refused(job_billing)) == (
        f"Spark at {by_spark.url} had no executor for 1 seconds: its workers are gone or busy, cannot reach this "
        f"machine, or have less memory than RECON_LAKE_MEMORY_MB ({MEMORY_MB:,} MB).\n{NOTHING}\n"
        "What to do: Look at the page of Spark's master; start workers, let SPARK_LOCAL_IP name an address that they "
        "reach, or set RECON_LAKE_MEMORY_MB lower; then run this again."
    )
