"""What programs that people use write is in the log as an independent reading has it."""

import csv
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.orc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recon_pipeline_tests.backfill.inserting import SPEC, insert_file
from recon_pipeline_tests.commands.conftest import prepared_template
from recon_pipeline_tests.reconciliation.billing import Billing, connected
from recon_pipeline_tests.support.postgres import PostgresServer

MAPPING = SPEC | {"event_timestamp": {"column": "at", "zone": "UTC"}}


@pytest.fixture(scope="module")
def billing(postgres_server: PostgresServer) -> Iterator[Billing]:
    url = postgres_server.create_database(prepared_template(postgres_server))
    with connected(url, autocommit=True) as connection:
        yield Billing(url, connection)


def by_csv(table: pa.Table, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, table.column_names)
        writer.writeheader()
        writer.writerows(table.to_pylist())


def by_json(table: pa.Table, path: Path) -> None:
    path.write_text("".join(f"{json.dumps(row, default=str)}\n" for row in table.to_pylist()), encoding="utf-8")


def by_duckdb(form: str) -> Callable[[pa.Table, Path], object]:
    def write(table: pa.Table, path: Path) -> None:
        with duckdb.connect() as connection:
            connection.execute("set timezone = 'America/New_York'")
            connection.register("audit", table)
            connection.execute(f"copy audit to '{path}' ({form})")

    return write


def frame(table: pa.Table) -> pl.DataFrame:
    return pl.DataFrame({name: pl.Series(name, table.column(name).to_pylist()) for name in table.column_names})


WRITERS: dict[str, Callable[[pa.Table, Path], object]] = {
    "csv.csv": by_csv,
    "json.ndjson": by_json,
    "pandas.csv": lambda table, path: table.to_pandas().to_csv(path, index=False),
    "pandas.tsv.gz": lambda table, path: table.to_pandas().to_csv(path, index=False, sep="\t", quoting=csv.QUOTE_ALL),
    "pandas.ndjson": lambda table, path: table.to_pandas().to_json(
        path, orient="records", lines=True, date_format="iso", date_unit="us"
    ),
    "pandas.json": lambda table, path: table.to_pandas().to_json(
        path, orient="records", date_format="iso", date_unit="us"
    ),
    "pandas.parquet": lambda table, path: table.to_pandas().to_parquet(path),
    "arrow.parquet": lambda table, path: pq.write_table(table, path, row_group_size=2, compression="zstd"),
    "arrow.orc": pyarrow.orc.write_table,
    "arrow.arrow": pyarrow.feather.write_feather,
    "polars.csv": lambda table, path: frame(table).write_csv(path),
    "polars.ndjson": lambda table, path: frame(table).write_ndjson(path),
    "polars.parquet": lambda table, path: frame(table).write_parquet(path),
    "duckdb.csv": by_duckdb("header"),
    "duckdb.json": by_duckdb("format json"),
    "duckdb-array.json": by_duckdb("format json, array true"),
    "duckdb.parquet": by_duckdb("format parquet"),
}
_NOTES = st.none() | st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("\n\",;'\\"), max_size=6)
_ROW = st.fixed_dictionaries(
    {
        "customer": st.text("aé中,;\"'=|\\ 1.", max_size=5).map(lambda text: f"c{text}."),
        "units": st.integers(1, 2**31 - 1),
        "at": st.datetimes(datetime(2025, 5, 1), datetime(2025, 5, 31), timezones=st.just(UTC)),  # noqa: DTZ001
        "note": _NOTES,
        "price": st.decimals(-1000, 1000, places=4),
    }
)


@settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(rows=st.lists(_ROW, min_size=1, max_size=5))
def test_what_every_writer_writes_is_in_the_log_to_the_last_digit(
    billing: Billing, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    table = pa.table(
        {
            "customer": pa.array([row["customer"] for row in rows], pa.string()),
            "request": pa.array([f"r{number}" for number in range(len(rows))], pa.string()),
            "units": pa.array([row["units"] for row in rows], pa.int64()),
            "at": pa.array([row["at"] for row in rows], pa.timestamp("us", "UTC")),
            "note": pa.array([row["note"] for row in rows], pa.string()),
            "price": pa.array([row["price"] for row in rows], pa.decimal128(10, 4)),
        }
    )
    expected = [(row["customer"], row["units"], row["at"], row["note"] or "", row["price"]) for row in rows]
    for name, write in WRITERS.items():
        path = tmp_path / name
        write(table, path)
        quote = {"quote": "double"} if ".tsv" in name else {}
        batch = insert_file(billing.url, str(path), mapping=MAPPING | quote)
        refused = billing.query("select reasons, raw_row from recon.rejected_event where batch_id = %s", batch.batch_id)
        assert (name, batch.inserted, refused) == (name, len(rows), [])
        found = billing.query(
            "select gateway_customer_id, quantity, event_timestamp, coalesce(metadata ->> 'note', ''), "
            "metadata ->> 'price' from billing_usage_events order by substr(request_id, 2)::int"
        )
        assert [(*row[:4], Decimal(row[4])) for row in found] == expected, name
        billing.query("delete from billing_usage_events")
