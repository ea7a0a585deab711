"""Lakes that are Delta or Iceberg tables: what their logs say is counted, and the version that was read is recorded."""

import json
import string
import struct
import sys
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.utils.config import Config

from recon_pipeline.core.errors import ConfigurationError, ReconError
from recon_pipeline_tests.commands.conftest import recon
from recon_pipeline_tests.lake.lakes import INSTANT, JUNE, MAY, Event, model, table
from recon_pipeline_tests.lake.test_counting_a_lake import KEPT, count
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.support.assets import run_assets

EVENTS = [Event("req-1", 4, "a"), Event("req-2", 6, "a"), Event("req-2", 6, "a"), Event("req-3", 3, "b")]
NOTHING = "Nothing was counted. No counter was changed."


class Delta:
    """A Delta table in a folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = str(folder / "delta table")
        monkeypatch.setenv("RECON_LAKE", self.url)

    def append(self, rows: pa.Table) -> None:
        deltalake.write_deltalake(self.url, rows, mode="append", partition_by=["usage_type"])

    def delete(self, where: str) -> None:
        deltalake.DeltaTable(self.url).delete(where)

    def rows(self, version: int) -> list[dict[str, Any]]:
        return deltalake.DeltaTable(self.url, version=version).to_pyarrow_table().to_pylist()


class Iceberg:
    """An Iceberg table of a catalog in SQLite."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYICEBERG_CATALOG__BILLING__URI", f"sqlite:///{folder}/catalog.db")
        monkeypatch.setenv("PYICEBERG_CATALOG__BILLING__WAREHOUSE", f"file://{folder}/warehouse")
        monkeypatch.setenv("RECON_LAKE", "iceberg://billing/usage.events")
        monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())  # which it reads when it is loaded
        self.catalog = load_catalog("billing")
        self.catalog.create_namespace("usage")

    def append(self, rows: pa.Table) -> None:
        self.catalog.create_table_if_not_exists("usage.events", rows.schema).append(rows)

    def delete(self, where: str) -> None:
        self.catalog.load_table("usage.events").delete(where)

    def rows(self, version: int) -> list[dict[str, Any]]:
        return self.catalog.load_table("usage.events").scan(snapshot_id=version).to_arrow().to_pylist()


KINDS: list[Any] = [Delta, Iceberg]


@pytest.fixture(params=KINDS, ids=["delta", "iceberg"])
def lake_table(request: pytest.FixtureRequest, lake: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty table of either format, complete until June."""
    return request.param(lake, monkeypatch)


def test_its_events_are_counted_in_every_file_of_its_newest_version(job_billing: Billing, lake_table: Any) -> None:
    lake_table.append(table(EVENTS[:2]))
    others = [Event("req-9", 9, "a", usage_type="sms"), Event("req-8", 8, "a", period_start=JUNE)]
    lake_table.append(table([*EVENTS[2:], *others]))
    (counted,) = count()
    assert counted.count is not None
    assert (counted.count.event_count, counted.count.usage_count, counted.count.dedupe_count) == (3, 13, 1)
    run_assets()
    assert job_billing.counters() == {"a": 10, "b": 3}


def test_what_was_deleted_does_not_come_back_and_the_version_that_was_read_gives_the_sums_again(
    job_billing: Billing, lake_table: Any
) -> None:
    lake_table.append(table(EVENTS))
    before = count()[0].count
    lake_table.delete("request_id = 'req-1'")
    after = count()[0].count
    assert before is not None
    assert after is not None
    assert (before.usage_count, after.usage_count) == (13, 9)
    assert count()[0].is_new is False

    lake_table.append(table([Event("req-4", 100, "c")]))
    for one, units in ((before, 13), (after, 9)):
        recorded = one.source["table"]
        assert recorded["format"] == type(lake_table).__name__
        rows = [Event(**row) for row in lake_table.rows(recorded["version"])]
        assert sum(key["usage"] for key in model(rows).values()) == units
        assert all(file["size"] > 0 for file in one.source["files"])
    newest = count()[0].count
    assert newest is not None
    assert newest.source["table"]["table"] == before.source["table"]["table"]


def test_a_row_that_a_deletion_vector_takes_out_of_a_file_is_not_counted(
    job_billing: Billing, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Delta(lake, monkeypatch)
    deltalake.write_deltalake(made.url, table(EVENTS))
    (path,) = Path(made.url).glob("*.parquet")
    delete_second_row(Path(made.url), path)
    (counted,) = count()
    assert counted.count is not None
    assert (counted.count.usage_count, counted.count.dedupe_count) == (13, 0)
    assert counted.count.source["table"]["version"] == 1


def delete_second_row(folder: Path, file: Path) -> None:
    """As Spark and Databricks do it: the file stays, and the log says which of its rows are gone."""
    features = ["deletionVectors"]
    bitmap = struct.pack("<iqi", 1_681_511_377, 1, 0) + struct.pack("<iiHHIHxx", 12_346, 1, 0, 0, 16, 1)
    vector = {"storageType": "i", "pathOrInlineDv": z85(bitmap), "sizeInBytes": len(bitmap) - 2, "cardinality": 1}
    of_file = {"path": file.name, "dataChange": True}
    actions = [
        {
            "protocol": {
                "minReaderVersion": 3,
                "minWriterVersion": 7,
                "readerFeatures": features,
                "writerFeatures": features,
            }
        },
        {"remove": {**of_file, "deletionTimestamp": 1_800_000_000_000}},
        {
            "add": {
                **of_file,
                "partitionValues": {},
                "size": file.stat().st_size,
                "modificationTime": 1_800_000_000_000,
                "stats": json.dumps({"numRecords": len(EVENTS)}),
                "deletionVector": vector,
            }
        },
    ]
    log = folder / "_delta_log" / f"{1:020}.json"
    log.write_text("\n".join(json.dumps(action) for action in actions))


def z85(content: bytes) -> str:
    """Bytes as Delta writes them into its log."""
    digits = string.digits + string.ascii_lowercase + string.ascii_uppercase + ".-:+=^!/*?&<>()[]{}@%$#"
    words = [word for (word,) in struct.iter_unpack(">I", content)]
    return "".join(digits[word // 85**place % 85] for word in words for place in (4, 3, 2, 1, 0))


def test_a_file_in_its_folder_that_its_log_does_not_name_is_not_read(
    job_billing: Billing, lake_table: Any, lake: Path
) -> None:
    lake_table.append(table(EVENTS))
    for folder in {file.parent for file in lake.rglob("*.parquet")}:
        pq.write_table(table([Event("req-7", 70, "a")]), folder / "left-by-a-failed-job.parquet")
    (counted,) = count()
    assert counted.count is not None
    assert counted.count.usage_count == 13


def test_a_column_that_was_added_later_is_null_in_older_files_and_decides_who_came_first(
    job_billing: Billing, lake_table: Any, lake: Path
) -> None:
    old = table([Event("req-1", 4, "a")]).drop_columns(["created_at"])
    lake_table.append(old)
    if isinstance(lake_table, Delta):
        deltalake.write_deltalake(lake_table.url, table([Event("req-1", 7, "b")]), mode="append", schema_mode="merge")
    else:
        with lake_table.catalog.load_table("usage.events").update_schema() as update:
            update.union_by_name(table([]).schema)
        lake_table.append(table([Event("req-1", 7, "b")]))
    (counted,) = count()
    assert counted.count is not None
    assert (counted.count.usage_count, counted.count.dedupe_count) == (4, 1)


def test_quantities_of_38_digits_and_names_of_any_script_are_counted_to_the_unit(
    job_billing: Billing, lake_table: Any
) -> None:
    big = 10**17 + 1
    events = [Event("req-1", big, "客户"), Event("req-2", big, "客户"), Event("req-3", 2**53 + 1, 'a"b')]
    lake_table.append(table(events, pa.decimal128(38, 0)))
    (counted,) = count()
    assert counted.count is not None
    assert counted.count.usage_count == 2 * big + 2**53 + 1
    run_assets()
    assert job_billing.counters() == {"客户": 2 * big, 'a"b': 2**53 + 1}


def test_the_command_says_which_version_was_counted(job_billing: Billing, lake_table: Any) -> None:
    lake_table.append(table(EVENTS))
    said = recon("count-lake", "--period", "2025-05").out.splitlines()[0]
    version = job_billing.value("select source -> 'table' ->> 'version' from recon.lake_count")
    kind = "Delta version" if isinstance(lake_table, Delta) else "Iceberg snapshot"
    assert f"(1 files of {kind} {version}, DuckDB 1.5." in said


def test_a_data_file_that_is_gone_leaves_nothing_behind(job_billing: Billing, lake_table: Any, lake: Path) -> None:
    lake_table.append(table(EVENTS))
    next(lake.rglob("*.parquet")).unlink()
    with pytest.raises(ReconError, match="cannot read the lake") as refused:
        count()
    assert refused.value.changed == NOTHING
    assert job_billing.value(KEPT) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_that_is_not_installed_is_named(
    job_billing: Billing, lake: Path, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    package, extra = {Delta: ("deltalake", "delta"), Iceberg: ("pyiceberg", "iceberg")}[kind]
    kind(lake, monkeypatch).append(table(EVENTS))
    loaded = "pyiceberg.catalog" if kind is Iceberg else package
    monkeypatch.setitem(sys.modules, loaded, None)
    done = recon("count-lake", "--period", "2025-05")
    assert (done.exit_code, done.err.splitlines()) == (
        2,
        [
            f"{package} is not installed: import of {loaded} halted; None in sys.modules.",
            NOTHING,
            f"What to do: Install it where this runs: uv pip install 'recon-pipeline[{extra}]'.",
        ],
    )


def test_a_table_that_is_not_there_or_is_named_in_another_way_is_refused_with_how_to_name_it(
    job_billing: Billing, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(url: str) -> tuple[str, str]:
        monkeypatch.setenv("RECON_LAKE", url)
        with pytest.raises(ConfigurationError) as found:
            count()
        assert found.value.changed == NOTHING
        return found.value.what, found.value.fix

    made = Iceberg(lake, monkeypatch)
    write_it = "Write it like RECON_LAKE=iceberg://catalog/namespace.table."
    assert refused("iceberg://billing/usage.none") == ("The catalog billing has no table usage.none.", write_it)
    assert refused("iceberg://billing") == (
        "RECON_LAKE is iceberg://billing, which names no table of a catalog.",
        write_it,
    )
    what, fix = refused("iceberg://nowhere/usage.events")
    assert what.startswith("pyiceberg cannot open the catalog nowhere: URI missing")
    assert "PYICEBERG_CATALOG__NOWHERE__URI" in fix
    made.catalog.create_table("usage.events", table([]).schema)
    assert refused("iceberg://billing/usage.events")[0] == (
        "The table usage.events of the catalog billing has no snapshot: nothing was written to it."
    )
    made.append(table(EVENTS))
    what, fix = refused(str(lake / "warehouse" / "usage" / "events"))
    assert "is an Iceberg table: its files also hold rows that were deleted or changed since." in what
    assert fix.startswith("Name the table: a Delta table by its folder, an Iceberg table like RECON_LAKE=iceberg://")


def test_columns_are_read_by_the_mapping_whatever_the_times_are_written_as(
    job_billing: Billing, lake_table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    millis = pa.array([int(MAY.timestamp() * 1000)] * 2)
    rows = {
        "account": ["a", "b"], "units": pa.array([2, 3]), "uid": ["x", "y"], "usage_type": ["remote_commands"] * 2,
        "begins": millis, "ends": pa.array([JUNE] * 2, INSTANT), "at": pa.array([MAY] * 2, INSTANT), "note": ["", ""],
    }  # fmt: skip
    lake_table.append(pa.table(rows))
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(
        "gateway_name: {value: stripe}\ngateway_customer_id: account\nusage_type: usage_type\nrequest_id: uid\n"
        "quantity: units\nevent_timestamp: at\nperiod_end: ends\n"
        "period_start: {column: begins, format: unix_milliseconds}\n"
    )
    monkeypatch.setenv("RECON_LAKE_MAPPING", str(mapping))
    count()
    run_assets()
    assert job_billing.counters() == {"a": 2, "b": 3}
