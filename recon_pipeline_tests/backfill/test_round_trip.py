"""What `recon rejected --output` writes is read again with the same mapping, value for value."""

import csv
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recon_pipeline.core.backfill.columns import Row, Unreadable
from recon_pipeline.core.backfill.mapping import parse_mapping
from recon_pipeline.core.backfill.quantities import QuantityRange
from recon_pipeline.core.backfill.reading import read_rows
from recon_pipeline.core.backfill.round_trip import guarded, row_as_text, unguarded
from recon_pipeline.core.backfill.rows import Reading
from recon_pipeline.core.scope import parse_scope
from recon_pipeline.faces.rejected_file import write_rejected
from recon_pipeline.sources.rows import read_files
from recon_pipeline.store.backfill.batches import NotTaken, every_not_taken
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.backfill.inserting import SCOPE, SPEC, insert_file
from recon_pipeline_tests.reconciliation.billing import Billing

AT = "2025-05-17T12:00:00Z"
ENDINGS = ("csv", "ndjson")
ELSEWHERE = parse_scope("paypal:tokens")
QUICK = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def said(path: Path, mapping: Mapping[str, Any], *, scope: Any = SCOPE) -> list[tuple[Row | Unreadable, Reading]]:
    """Every row of a file with what it says."""
    spec = parse_mapping(mapping)
    pieces = read_files([str(path)], encoding=spec.encoding, delimiter=spec.delimiter, quote=spec.quote)
    read = read_rows(pieces, spec, batch_id="b", quantity_range=QuantityRange.of("integer"), scope=scope)
    return [pair for piece in read for pair in zip(piece.rows, piece.readings, strict=True)]


def sent_again(
    rows: Sequence[tuple[Row | Unreadable, Reading]], mapping: Mapping[str, Any], path: Path, *, scope: Any = SCOPE
) -> list[tuple[Row | Unreadable, Reading]]:
    kept = [NotTaken("rejected", "audit", one.line, one.reasons, row_as_text(row)) for row, one in rows]
    write_rejected(lambda: kept, mapping, path)
    return said(path, mapping, scope=scope)


def content(reading: Reading) -> tuple[Any, ...]:
    """What a row says but for where it stands."""
    metadata = json.loads(reading.metadata, parse_float=str) if reading.metadata and not reading.reasons else {}
    metadata.pop("recon_backfill", None)
    return (*reading[1:-1], [*metadata.items()])


def values(row: Row | Unreadable) -> Any:
    """A row as it is kept, without what is not there."""
    raw = json.loads(row_as_text(row), parse_float=str)
    return {name: value for name, value in raw.items() if value is not None} if isinstance(raw, dict) else raw


def require_round_trip(source: Path, mapping: Mapping[str, Any], ending: str) -> None:
    """Every rejected row is rejected again; and each row that is wanted nowhere else is read as the source's."""
    back = source.with_name(f"back.{ending}")
    rejected = [(row, one) for row, one in said(source, mapping) if one.reasons]
    if rejected:
        again = sent_again(rejected, mapping, back)
        assert [one.reasons for _, one in again] == [one.reasons for _, one in rejected]
        assert [values(row) for row, _ in again] == [values(row) for row, _ in rejected]
    first = said(source, mapping)
    again = sent_again(said(source, mapping, scope=ELSEWHERE), mapping, back)
    assert [content(one) for _, one in again] == [content(one) for _, one in first]


_TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ("", " ", "c", "Müller", "=1+1", "'=1", "''-x", "+49", "-5", "-x", "@a", "\tb", "\r", "a\nb", 'a"b', "a;b,c")
    ),
    st.sampled_from(
        ("1.5", "7.0", "1e3", "1.000", "NULL", "-", "\ufeff", AT, "{}", '{"a": 1}', "[", "\uff1dx", "'", "\\N")
    ),
)
_CSV_NAMES = ("customer", "request", "units", "at", "note", "=run")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"encoding": "latin-1", "delimiter": ";"},
        {"encoding": "utf-16"},
        {"quote": "none", "delimiter": "\t", "nulls": "-"},
    ],
    ids=str,
)
@given(data=st.data())
@QUICK
def test_rejected_rows_of_csv_come_back_as_they_were(
    tmp_path: Path, options: dict[str, Any], ending: str, data: st.DataObject
) -> None:
    encoding, bare = options.get("encoding", "utf-8"), options.get("quote") == "none"
    texts = _TEXTS.filter(lambda text: not (bare and set(text) & set("\t\r\n")))
    cells = {"customer": st.just("c"), "request": st.just("r"), "units": st.just("1"), "at": st.just(AT)}
    row = st.fixed_dictionaries({name: texts | cells.get(name, texts) for name in _CSV_NAMES})
    rows = data.draw(st.lists(row, min_size=1, max_size=4))
    source = tmp_path / "audit.csv"
    with source.open("w", encoding=encoding, errors="replace", newline="") as file:
        quoting: Any = {"quoting": csv.QUOTE_NONE, "quotechar": None} if bare else {}
        writer = csv.writer(file, delimiter=options.get("delimiter", ","), escapechar="\\" if bare else None, **quoting)
        writer.writerows([_CSV_NAMES, *(one.values() for one in rows)])
        if not bare:
            file.write("just one cell\r\n")
    require_round_trip(source, SPEC | options, ending)


_NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXTS | st.decimals(allow_nan=False).map(str),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.parametrize("ending", ENDINGS)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {"request": _NESTED},
            optional={
                "customer": st.just("c") | _NESTED,
                "data": st.fixed_dictionaries({"units": st.integers(-1, 3) | _NESTED}) | _NESTED,
                "at": st.just(AT) | _NESTED,
                "n\ud800": _NESTED,
                "": _NESTED,
                "note": _NESTED,
            },
        ),
        min_size=1,
        max_size=4,
    )
)
@QUICK
def test_rejected_rows_of_json_come_back_as_they_were(tmp_path: Path, rows: list[Any], ending: str) -> None:
    source = tmp_path / "audit.ndjson"
    whole = {"customer": "c", "request": "r", "data": {"units": 1}, "at": AT, "price": Decimal("0.10")}
    texts = [json.dumps(one, default=float) for one in (whole, *rows)]
    source.write_text("\n".join((*texts, '{"broken": ', "no JSON", '{"a": 1, "a": 2}', "[1]", "")))
    require_round_trip(source, SPEC | {"quantity": "data.units"}, ending)


_INSTANTS = st.datetimes(datetime(1999, 1, 1), datetime(2040, 1, 1))  # noqa: DTZ001 - columns without a zone, too
_COLUMNS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "float": (pa.float64(), st.floats() | st.integers(-3, 200).map(float)),
    "short": (pa.float32(), st.floats(width=32) | st.integers(2**24 - 2, 2**24).map(float)),
    "bytes": (pa.binary(), st.binary(max_size=3)),
    "utc": (pa.timestamp("us", "UTC"), _INSTANTS.map(lambda one: one.replace(tzinfo=UTC))),
    "naive": (pa.timestamp("ms"), _INSTANTS.map(lambda one: one.replace(microsecond=0))),
    "fine": (pa.timestamp("ns", "UTC"), st.integers(10**18, 2 * 10**18)),
    "date": (pa.date32(), st.dates(date(1999, 1, 1), date(2040, 1, 1))),
    "time": (pa.time64("us"), st.times()),
    "span": (pa.duration("us"), st.timedeltas(timedelta(0), timedelta(9))),
    "decimal": (pa.decimal128(20, 4), st.integers(-5, 5000).map(lambda one: Decimal(one).scaleb(-4) * 2)),
    "int": (pa.int64(), st.integers(-3, 2**60)),
    "bool": (pa.bool_(), st.booleans()),
    "text": (pa.string(), _TEXTS),
    "struct": (
        pa.struct([("id", pa.float64()), ("raw", pa.binary()), ("at", pa.timestamp("us", "UTC"))]),
        st.fixed_dictionaries(
            {"id": st.floats(), "raw": st.binary(max_size=2), "at": st.just(datetime(2025, 5, 1, tzinfo=UTC))}
        ),
    ),
    "list": (pa.list_(pa.float64()), st.lists(st.floats(), max_size=2)),
}


@pytest.mark.parametrize("ending", ENDINGS)
@given(data=st.data())
@QUICK
def test_rejected_rows_of_every_type_of_parquet_come_back_as_they_were(
    tmp_path: Path, ending: str, data: st.DataObject
) -> None:
    columns = {
        name: pa.array(data.draw(st.lists(st.none() | values, min_size=3, max_size=3)), kind)
        for name, (kind, values) in _COLUMNS.items()
    }
    source = tmp_path / "audit.parquet"
    pq.write_table(pa.table(columns), source)
    names = [*_COLUMNS, "struct.id", "struct.raw", "list.0"]
    mapping = SPEC | {
        "gateway_customer_id": data.draw(st.sampled_from(names)),
        "request_id": data.draw(st.sampled_from(names)),
        "primary_key": data.draw(st.lists(st.sampled_from(names), max_size=2, unique=True)),
        "quantity": data.draw(st.sampled_from(["float", "short", "decimal", "int", "text"])),
        "event_timestamp": {
            "column": data.draw(st.sampled_from(["utc", "naive", "fine", "date", "struct.at", "int", "text"])),
            "format": data.draw(st.sampled_from(["iso", "unix_seconds", "%d.%m.%Y"])),
            "zone": "UTC",
        },
        "nulls": data.draw(st.sampled_from([["-"], ["NULL", "nan"]])),
    }
    require_round_trip(source, mapping, ending)


@given(text=_TEXTS | st.text(alphabet="'=+-@\t1x.", max_size=6))
def test_a_cell_that_a_spreadsheet_would_run_is_marked_and_comes_back(text: str) -> None:
    cell = guarded(text)
    assert unguarded(cell) == text
    if cell[:1] in set("=+-@\t\r"):
        assert cell[1:].replace(".", "").replace(",", "").isdigit(), "a plain number"


@pytest.mark.parametrize(
    ("encoding", "delimiter"), [("utf-8-sig", ";"), ("utf-8", ","), ("utf-8", "\t"), ("utf-16", "\t")]
)
def test_a_file_that_a_spreadsheet_saved_in_its_own_way_is_read(tmp_path: Path, encoding: str, delimiter: str) -> None:
    source, back = tmp_path / "audit.csv", tmp_path / "back.csv"
    mapping = SPEC | {"encoding": "latin-1", "delimiter": ";"}
    source.write_text(f"customer;request;units;at\nMüller;=r;1,5;{AT}\n", encoding="latin-1")
    sent_again(said(source, mapping), mapping, back)
    with back.open(encoding="utf-8-sig", newline="") as file:
        rows = [*csv.reader(file, delimiter=";")]
    names = [name for name in rows[0] if name in ("units", "customer", "request", "at", "recon_kind")]
    fixed = [names[::-1], *([row[rows[0].index(name)].replace("1,5", "2") for name in names[::-1]] for row in rows[1:])]
    with back.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(fixed)
    ((_, reading),) = said(back, mapping)
    assert (reading.gateway_customer_id, reading.request_id, reading.quantity) == ("Müller", "=r", 2)
    assert not reading.reasons


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_a_person_writes_in_place_of_a_value_is_taken_as_it_is_written(tmp_path: Path, ending: str) -> None:
    source, back = tmp_path / "audit.parquet", tmp_path / f"back.{ending}"
    pq.write_table(
        pa.table(
            {"customer": [101.0], "request": [b"\x01"], "units": [-1.0], "at": [datetime.fromisoformat("1970-01-01")]}
        ),
        source,
    )
    mapping = SPEC | {"event_timestamp": {"column": "at", "zone": "UTC"}}
    assert [bool(one.reasons) for _, one in sent_again(said(source, mapping), mapping, back)] == [True]
    text = back.read_text(encoding="utf-8-sig")
    fixes = {"csv": (("01,", "key,"), ("-1.0", "3")), "ndjson": (('"01"', '"key"'), ("-1.0", "3"))}
    for before, after in (*fixes[ending], ("1970-01-01T00:00:00", AT)):
        text = text.replace(before, after)
    back.write_text(text)
    ((_, reading),) = said(back, mapping)
    assert reading[1:7] == ((), "stripe", "101", "remote_commands", "key", 3)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_row_whose_reason_has_gone_is_inserted_with_the_values_of_its_source(
    billing: Billing, tmp_path: Path, ending: str
) -> None:
    source, back = tmp_path / "audit.csv", tmp_path / f"back.{ending}"
    source.write_text(f"customer;request;units;at;note\nMüller;=1+1;7;{AT};-x\n", encoding="cp1252")
    mapping = SPEC | {"encoding": "cp1252", "delimiter": ";"}
    batch = insert_file(billing.url, str(source), mapping=mapping, months=("2025-01", "2025-04"))
    assert (batch.inserted, batch.rejected) == (0, 1)
    database = BillingDatabase(billing.url)
    write_rejected(lambda: every_not_taken(database, batch.batch_id), batch.mapping, back)
    assert insert_file(billing.url, str(back), mapping=mapping).inserted == 1
    (event,) = billing.query("select gateway_customer_id, request_id, quantity, metadata from billing_usage_events")
    assert tuple(event[:3]) == ("Müller", "=1+1", 7)
    assert {name: value for name, value in event.metadata.items() if name != "recon_backfill"} == {"note": "-x"}
    assert insert_file(billing.url, str(source), mapping=mapping).duplicate == 1
