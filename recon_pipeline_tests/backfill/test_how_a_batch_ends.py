"""Whatever ends a batch, its record says so; and no row ends one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recon_pipeline.core.backfill.mapping import parse_mapping
from recon_pipeline.core.backfill.metadata import MetadataWriter
from recon_pipeline.core.backfill.quantities import QuantityRange
from recon_pipeline.core.backfill.reading import Readings, read_rows
from recon_pipeline.core.backfill.rows import RowReader
from recon_pipeline.core.errors import ReconError
from recon_pipeline.sources import rows as files
from recon_pipeline.store.backfill import load
from recon_pipeline.store.backfill.exports import read_export
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.backfill.inserting import SCOPE, SPEC, insert_file
from recon_pipeline_tests.backfill.reading import readings
from recon_pipeline_tests.reconciliation.billing import Billing

AT = "2025-05-17T12:00:00Z"
GOOD = {"customer": "c", "request": "good", "units": 1, "at": AT}


def audit(folder: Path, rows: int) -> str:
    path = folder / "audit.csv"
    path.write_text("customer,request,units,at\n" + "".join(f"c,r{number},1,{AT}\n" for number in range(rows)))
    return str(path)


class ABugError(Exception):
    """An error that nobody expected."""


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        (ABugError, "reading"),
        (MemoryError, "reading"),
        (KeyError, "classifying"),
        (ABugError, "inserting"),
        (SystemExit, "inserting"),
        (KeyboardInterrupt, "reporting"),
    ],
)
def test_an_error_that_nobody_expected_closes_the_record_with_its_cause_and_its_rows_and_is_raised(
    billing: Billing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException], where: str
) -> None:
    monkeypatch.setattr(files, "CHUNK_ROWS", 10)
    calls = iter(range(100))

    def failing(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if next(calls) == 2:
                raise kind("the third piece")
            return original(*args, **options)

        return call

    def report(_: int) -> None:
        if where == "reporting":
            failing(lambda: None)()

    places = {
        "reading": (RowReader, "read"),
        "inserting": (load, "insert"),
        "classifying": (load.Classifier, "classified"),
    }
    if where in places:
        holder, name = places[where]
        monkeypatch.setattr(holder, name, failing(getattr(holder, name)))
    with pytest.raises(kind, match="the third piece"):
        insert_file(billing.url, audit(tmp_path, 40), report)
    (record,) = billing.query("select outcome, error, rows_read, inserted, finished_at from recon.backfill_batch")
    assert record.outcome == "failed"
    assert record.finished_at is not None
    assert record.rows_read == record.inserted == (30 if where == "reporting" else 20)
    assert f"{kind.__name__}: the third piece" in record.error.replace("'", "")
    assert "audit.csv" in record.error
    assert "lines 22 to 31" in record.error


def test_a_row_that_the_reader_trips_over_is_rejected_and_no_other(
    billing: Billing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = RowReader.read

    def read(reader: RowReader, lines: Any, rows: Any) -> Any:
        if 5 in lines:
            raise ZeroDivisionError("nobody thought of this")
        return original(reader, lines, rows)

    monkeypatch.setattr(RowReader, "read", read)
    batch = insert_file(billing.url, audit(tmp_path, 20))
    assert (batch.outcome, batch.inserted, batch.rejected) == ("done", 19, 1)
    (row,) = billing.query("select line, reasons, raw_row from recon.rejected_event")
    assert (row.line, json.loads(row.raw_row)["request"]) == (5, "r3")
    assert "ZeroDivisionError: nobody thought of this" in row.reasons[0]


def test_metadata_that_the_log_cannot_take_rejects_its_row_and_no_other(
    billing: Billing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = MetadataWriter.write

    def write(writer: MetadataWriter, lines: Any, rows: Any, reasons: Any) -> list[str]:
        texts = original(writer, lines, rows, reasons)
        return [text if line != 5 else f"{text}, and more" for line, text in zip(lines, texts, strict=True)]

    monkeypatch.setattr(MetadataWriter, "write", write)
    batch = insert_file(billing.url, audit(tmp_path, 20))
    assert (batch.outcome, batch.inserted, batch.rejected) == ("done", 19, 1)
    (row,) = billing.query("select line, reasons from recon.rejected_event")
    assert row.line == 5
    assert "the log refused it: invalid input syntax for type json" in row.reasons[0]


_WRONG = [
    '{"customer": "c", "request": "x\\ud800", "units": 1, "at": "%s"}',
    '{"customer": "c", "request": "x", "units": 1, "at": "%s", "note": "\\ud83d"}',
    '{"customer": "c", "request": "x", "units": 1, "at": "%s", "no\\ud800te": 1}',
    '{"customer": "c", "request": "x\\u0000", "units": 1, "at": "%s"}',
    '{"customer": "c", "request": "x", "units": 1, "at": "%s", "no\\u0000te": {"a": ["\\u0000"]}}',
    '{"customer": "c", "request": "x", "units": ' + "9" * 10**6 + ', "at": "%s"}',
    '{"customer": "c", "request": ' + "9" * 10**6 + ', "units": 1, "at": "%s"}',
    '{"customer": "c", "request": "x", "units": 1.' + "0" * 10**6 + '1, "at": "%s"}',
    '{"customer": "c", "request": "x", "units": 1e' + "9" * 10**6 + ', "at": "%s"}',
    '{"customer": "c", "request": "x", "units": -1E999999999999999999, "at": "%s"}',
    '{"customer": "c", "request": "x", "units": "' + "9" * 10**6 + '", "at": "%s"}',
    '{"customer": "c", "request": "x", "units": 1, "at": ' + "9" * 10**6 + "}%.0s",
    '{"customer": "' + "c" * 10**6 + '", "request": "x", "units": 1, "at": "%s"}',
    '{"customer": "c", "request": "x", "units": 1, "at": "9999-12-31T23:59:59-23:59"}%.0s',
    '{"customer": {"a": ["b"]}, "request": ["x"], "units": {}, "at": ["%s"]}',
    '{"customer": true, "request": false, "units": true, "at": true}%.0s',
    "null%.0s",
    "[]%.0s",
    '"%s"',
    '{"customer"%.0s',
    '{"a": 1, "a": 2}%.0s',
    '{"": "%s", "\\u0000": 1}',
    "\x00\x00\x00%.0s",
    '{"customer": "c", "request": "x", "units": 1, "at": "%s", "deep": ' + "[" * 10_000 + "]" * 10_000 + "}",
    '{"customer": "c", "request": "x", "units": 1, "at": "%s", "deep": ' + "[" * 10_000 + "}",
    "[" * 10**6 + "%.0s",
]


def test_no_row_of_json_ends_a_batch_and_its_neighbours_are_inserted(billing: Billing, tmp_path: Path) -> None:
    path = tmp_path / "audit.ndjson"
    lines = [json.dumps(GOOD | {"request": f"r{number}"}) for number in range(len(_WRONG) + 1)]
    lines[1:1] = [wrong % AT for wrong in _WRONG]
    path.write_text("\n".join((*lines, "")))
    batch = insert_file(billing.url, str(path))
    assert (batch.outcome, batch.inserted, batch.rejected) == ("done", len(_WRONG) + 1, len(_WRONG))
    rejected = billing.query("select line, reasons from recon.rejected_event order by line")
    assert [row.line for row in rejected if row.reasons] == [*range(2, len(_WRONG) + 2)]


def of_table(billing: Billing, sql: str, mapping: dict[str, Any] = SPEC) -> list[Readings]:
    billing.query(f"create table audit as {sql}")
    pieces = read_export(BillingDatabase(billing.url), "table:audit", chunk_rows=2)
    integer = QuantityRange.of("integer")
    return [*read_rows(pieces, parse_mapping(mapping), batch_id="b", quantity_range=integer, scope=SCOPE)]


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date"])
def test_a_time_of_a_table_that_is_no_instant_rejects_its_row_and_no_other(billing: Billing, kind: str) -> None:
    values = ["infinity", "-infinity", "0044-03-15 BC", "12026-05-17"]
    listed = ", ".join(f"({number}, '{value}'::{kind})" for number, value in enumerate([*values, "2025-05-17"]))
    found = of_table(
        billing,
        f"select 'c' as customer, 'r' || n as request, 1 as units, at from (values {listed}) as t (n, at)",
        SPEC | {"event_timestamp": {"column": "at", "zone": "UTC"}},
    )
    *bad, good = [reading.reasons for piece in found for reading in piece.readings]
    for reasons, value in zip(bad, values, strict=True):
        assert value in reasons[0] or value.removesuffix(" BC") in reasons[0]
    assert bool(good) == (kind == "date"), "a date has no time of day"


def test_what_python_has_no_value_for_is_metadata_as_postgres_writes_it(billing: Billing) -> None:
    ((reading,),) = [
        piece.readings
        for piece in of_table(
            billing,
            f"""select 'c' as customer, 'r' as request, 1 as units, timestamptz '{AT}' as at, date 'infinity' as until,
            timestamp '-infinity' as since, time '24:00' as midnight, timetz '24:00+02' as there,
            array[timestamptz 'infinity', '{AT}'] as both, tstzrange('{AT}', 'infinity') as during,
            'NaN'::numeric as nan, 'Infinity'::numeric as endless, '\\x00ff'::bytea as bytes,
            10000000000000000000000::numeric as long, '{{1,NULL}}'::int[] as list, point(1, 2) as place""",
        )
    ]
    kept = json.loads(reading.metadata or "")
    assert not reading.reasons
    assert (kept["until"], kept["since"]) == ("infinity", "-infinity")
    assert (kept["midnight"], kept["there"]) == ("24:00:00", "24:00:00+02")
    assert (kept["both"][0], kept["nan"], kept["endless"]) == ("infinity", "NaN", "Infinity")
    assert "infinity" in kept["during"]
    assert (kept["bytes"], kept["long"], kept["list"], kept["place"]) == ("00ff", 10**22, [1, None], "(1,2)")


@pytest.mark.parametrize("query", ["select", "select 1/0 as customer", "", "delete from billing_usage_events"])
def test_a_query_that_gives_no_rows_of_columns_is_refused_in_words(billing: Billing, query: str) -> None:
    with pytest.raises(ReconError) as refused:
        list(read_export(BillingDatabase(billing.url), f"query:{query}", chunk_rows=10))
    assert refused.value.fix


@pytest.mark.parametrize(
    "query",
    [
        "select 1 / (50 - n) as customer from generate_series(1, 60) n",
        "with gone as (delete from billing_usage_events returning 1) select 1 as customer",
        "select 'x'::int as customer",
    ],
)
def test_an_error_of_a_query_is_one_of_what_was_written_and_no_fault_of_recon(billing: Billing, query: str) -> None:
    with pytest.raises(ReconError, match="cannot be read") as refused:
        list(read_export(BillingDatabase(billing.url), f"query:{query}", chunk_rows=10))
    assert "Try the query in psql" in refused.value.fix


def test_a_time_of_a_parquet_file_that_python_has_no_value_for_rejects_its_row(tmp_path: Path) -> None:
    path = tmp_path / "audit.parquet"
    for kind in (
        pa.timestamp("us", "UTC"),
        pa.timestamp("ms"),
        pa.date32(),
        pa.date64(),
        pa.time64("ns"),
        pa.duration("s"),
    ):
        largest = 2**31 - 1 if kind == pa.date32() else 86_400_000 * 10**6 if kind == pa.date64() else 2**62
        if pa.types.is_time(kind):
            largest = 86_399_999_999_999
        odd = pa.array([largest, 1], pa.int32() if kind == pa.date32() else pa.int64()).cast(kind)
        columns = {"customer": ["c", "c"], "request": ["a", "b"], "units": [1, 1], "at": [AT, AT]}
        pq.write_table(pa.table({**columns, "odd": odd}), path)
        assert [bool(one.reasons) for one in readings(path)] == [False, False], kind
        pq.write_table(pa.table({**columns, "at": odd}), path)
        assert [bool(one.reasons) for one in readings(path)] == [True, True], kind


def test_a_text_of_a_parquet_file_that_is_no_utf8_rejects_its_row_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "audit.parquet"
    names = pa.array([b"c", b"M\xfcller"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"customer": names, "request": ["a", "b"], "units": [1, 1], "at": [AT, AT]}), path)
    good, bad = readings(path)
    assert not good.reasons
    assert "has another encoding than the mapping says" in bad.reasons[0]


def test_what_commands_a_terminal_is_escaped_in_the_error_and_in_the_record(billing: Billing, tmp_path: Path) -> None:
    path = tmp_path / "audit\x1b[2J.csv"
    path.write_bytes("a\x1b[31m\x07\x9b2J\u202eb,<b>[red]\n1,2\n".encode())
    with pytest.raises(ReconError) as refused:
        insert_file(billing.url, str(path))
    (record,) = billing.connection.execute("select error from recon.backfill_batch").fetchall()
    for said in (refused.value.what, str(refused.value), str(refused.value.args), record[0]):
        assert r"a\x1b[31m\x07\x9b2J\u202eb" in said.replace(r"\\", "\\")
        assert all(one.isprintable() or one == "\n" for one in said)


def test_a_header_in_another_encoding_is_refused_with_what_to_write(billing: Billing, tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"
    path.write_bytes(f"customer,request,units,at,gr\u00f6\u00dfe\nc,r,1,{AT},2\n".encode("latin-1"))
    with pytest.raises(ReconError, match="is in another encoding than the mapping says") as refused:
        insert_file(billing.url, str(path))
    assert "encoding: in the mapping, such as cp1252" in refused.value.fix
    str(refused.value).encode()
    assert insert_file(billing.url, str(path), mapping=SPEC | {"encoding": "latin-1"}).inserted == 1
