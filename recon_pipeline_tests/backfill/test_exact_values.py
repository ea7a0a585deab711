"""What real programs wrote is read to the last digit, or refused with the reason; never taken for another value."""

import csv
import io
import json
import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recon_pipeline.core.backfill.mapping import parse_mapping
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline_tests.backfill.inserting import SPEC
from recon_pipeline_tests.backfill.reading import readings

AT = "2025-05-17T12:00:00Z"
ROW = {"customer": "c", "request": "r", "units": 1, "at": AT}
KEYED = {name: field for name, field in SPEC.items() if name != "request_id"} | {"primary_key": "key"}
NUMERIC = "numeric"


def ndjson(path: Path, *lines: str) -> Path:
    path = path / "audit.ndjson"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def of_json(folder: Path, values: str, **more: Any) -> Any:
    """What a row says in which these values, as text, stand beside or instead of the usual ones."""
    usual = json.dumps({name: value for name, value in ROW.items() if f'"{name}"' not in values})
    return readings(ndjson(folder, usual[:-1] + ", " + values + "}"), **more)[0]


def of_csv(folder: Path, mapping: Any = SPEC, **values: str) -> Any:
    """What a row of texts says."""
    path, row = folder / "audit.csv", {**{name: str(value) for name, value in ROW.items()}, **values}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    return readings(path, mapping)[0]


def quantity(units: dict[str, Any]) -> Any:
    return SPEC | {"quantity": {"column": "units"} | units}


def test_a_number_of_json_is_read_to_its_last_digit(tmp_path: Path) -> None:
    assert of_json(tmp_path, '"units": 2.9999999999999999999', quantity_type=NUMERIC).quantity == Decimal(
        "2.9999999999999999999"
    )
    (reason,) = of_json(tmp_path, '"units": 2.9999999999999999999').reasons
    assert "has a fraction" in reason
    assert of_json(tmp_path, '"units": 3.0').quantity == 3
    assert of_json(tmp_path, '"request": 9007199254740993').request_id == "9007199254740993"
    assert of_json(tmp_path, '"request": 9007199254740993.0').request_id == "9007199254740993"
    assert of_json(tmp_path, '"request": 9007199254740992.0').request_id == "9007199254740992"


@pytest.mark.parametrize("name", ["request", "customer", "units"])
@pytest.mark.parametrize("number", ["1.79349E+12", "1.79349e+12", "1E+999999", "1E+99999999999999999999"])
def test_a_number_with_an_exponent_is_no_identifier_no_quantity_and_kills_no_batch(
    tmp_path: Path, name: str, number: str
) -> None:
    assert of_json(tmp_path, f'"{name}": {number}').reasons
    assert of_csv(tmp_path, **{name: number}).reasons


@pytest.mark.parametrize("form", ["unix_seconds", "unix_milliseconds", "unix_microseconds", "unix_nanoseconds"])
def test_a_time_with_an_exponent_is_refused_and_one_in_another_unit_too(tmp_path: Path, form: str) -> None:
    spec = SPEC | {"event_timestamp": {"column": "at", "format": form}}
    assert "scientific notation" in of_csv(tmp_path, spec, at="1.747483E+12").reasons[0]
    units = {"unix_seconds": 1, "unix_milliseconds": 10**3, "unix_microseconds": 10**6, "unix_nanoseconds": 10**9}
    for other, per_second in units.items():
        said = of_csv(tmp_path, spec, at=str(1_747_483_200 * per_second))
        if other == form:
            assert said.event_timestamp == datetime(2025, 5, 17, 12, tzinfo=UTC)
        else:
            assert f"set format: {other}" in said.reasons[0]
    assert of_csv(tmp_path, spec, at="1_747_483_200").reasons


@pytest.mark.parametrize("year", ["1970", "1999", "2101", "0001", "9999"])
def test_a_time_before_2000_or_after_2100_is_refused(tmp_path: Path, year: str) -> None:
    assert "2000 to 2100" in of_csv(tmp_path, at=f"{year}-05-17T12:00:00Z").reasons[0]
    assert not of_csv(tmp_path, at="2000-01-01T00:00:00Z").reasons
    assert not of_csv(tmp_path, at="2100-12-31T23:59:59Z").reasons


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2025-05-17t12:00:00z", "2025-05-17T12:00:00+00:00"),
        ("2025-05-17 12:00:00 GMT", "2025-05-17T12:00:00+00:00"),
        ("2025-W20-6T12:00:00Z", "2025-05-17T12:00:00+00:00"),
        ("2025-137T14:00:00+02:00", "2025-05-17T12:00:00+00:00"),
        ("2025137T120000Z", "2025-05-17T12:00:00+00:00"),
        ("2024-366T12:00:00Z", "2024-12-31T12:00:00+00:00"),
        ("2025-05-16T24:00:00Z", "2025-05-17T00:00:00+00:00"),
        ("2025-12-31T24:00:00+01:00", "2025-12-31T23:00:00+00:00"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00+00:00"),
        ("2017-01-01T00:59:60.5+01:00", "2017-01-01T00:00:00.500000+00:00"),
        ("2025-05-17T12:00:00.123456789Z", "2025-05-17T12:00:00.123456+00:00"),
    ],
)
def test_a_time_is_the_same_instant_in_every_way_in_which_iso_8601_writes_it(
    tmp_path: Path, text: str, instant: str
) -> None:
    said = of_csv(tmp_path, at=text)
    assert said.reasons == ()
    assert said.event_timestamp.isoformat() == instant


@pytest.mark.parametrize(
    "text",
    [
        *("2025-366T12:00:00Z", "2025-000T12:00:00Z", "2025-05-17T24:00:01Z", "2025-05-17T25:00:00Z"),
        *("2025-05-17T12:59:60Z", "2025-05-17T12:00:60Z", "2025-137", "2025-05-17", "2025-W54-1T00:00:00Z"),
    ],
)
def test_a_time_that_does_not_exist_is_refused(tmp_path: Path, text: str) -> None:
    assert of_csv(tmp_path, at=text).reasons


@pytest.mark.parametrize(
    "text",
    [
        *("2025-05-17+02:00", "2025-05-17-07:00", "2025-05-17Z", "20250517+0200", "20250517112", "2025-05-17:12:00:00"),
        *("2025-W20T12:00", "2025-W20 12:00", "2025-05-17x12:00:00", "2025-05-17-12:00:00"),
    ],
)
def test_the_offset_of_a_date_is_no_time_of_day_and_a_week_no_day(tmp_path: Path, text: str) -> None:
    zoned = SPEC | {"event_timestamp": {"column": "at", "zone": "Europe/Berlin"}}
    (reason,) = of_csv(tmp_path, zoned, at=text).reasons
    assert "has no time of day" in reason or "is not an ISO 8601 time" in reason


@pytest.mark.parametrize(
    ("form", "lacks"),
    [
        ("%m/%d/%Y %H:%M:%S %p", "a.m. or p.m."),
        ("%m/%d/%Y %I:%M:%S", "a.m. or p.m."),
        ("%Y %H:%M", "no day"),
        ("%Y-%m %H:%M", "no day"),
        ("%Y-W%W %H:%M", "no day"),
        ("%H:%M", "no day"),
        ("%d.%m. %H:%M", "no day"),
    ],
)
def test_a_format_of_which_a_part_would_be_ignored_or_filled_in_is_refused(form: str, lacks: str) -> None:
    with pytest.raises(ConfigurationError, match=lacks):
        parse_mapping(SPEC | {"event_timestamp": {"column": "at", "format": form, "zone": "UTC"}})


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("%m/%d/%Y %I:%M:%S %p", "05/17/2025 12:00:00 PM"),
        ("%y%m%d%H%M", "2505171200"),
        ("%Y-%j %H:%M", "2025-137 12:00"),
        ("%G-W%V-%u %H", "2025-W20-6 12"),
        ("%a %b %d %H:%M:%S %Y", "Sat May 17 12:00:00 2025"),
        ("%c", "Sat May 17 12:00:00 2025"),
        ("100%% %d.%m.%Y %H:%M", "100% 17.05.2025 12:00"),
    ],
)
def test_a_format_that_determines_a_time_is_read(tmp_path: Path, form: str, text: str) -> None:
    said = of_csv(tmp_path, SPEC | {"event_timestamp": {"column": "at", "format": form, "zone": "UTC"}}, at=text)
    assert said.event_timestamp == datetime(2025, 5, 17, 12, tzinfo=UTC)


def test_the_name_of_a_zone_is_honoured_if_it_means_one_and_refused_else(tmp_path: Path) -> None:
    spec = SPEC | {"event_timestamp": {"column": "at", "format": "%Y-%m-%d %H:%M:%S %Z", "zone": "Asia/Tokyo"}}
    for name in ("UTC", "GMT", "Z"):
        assert of_csv(tmp_path, spec, at=f"2025-05-17 12:00:00 {name}").event_timestamp.isoformat() == (
            "2025-05-17T12:00:00+00:00"
        )
    for name in ("CST", "JST", "EST", "CEST"):
        assert "other names mean several zones" in of_csv(tmp_path, spec, at=f"2025-05-17 12:00:00 {name}").reasons[0]


@pytest.mark.parametrize("word", ["", "\\N", "NULL", "null", "None", "nan", "NaN"])
def test_a_word_for_null_is_null_in_every_column_of_the_mapping(tmp_path: Path, word: str) -> None:
    for name in ROW:
        (reason,) = of_csv(tmp_path, **{name: word}).reasons
        assert "is empty" in reason
    keyed = SPEC | {"primary_key": "key"}
    made = {of_csv(tmp_path, keyed, request=word, key=key).request_id for key in ("1", "2")}
    assert len(made) == 2
    assert None not in made
    assert "is empty" in of_csv(tmp_path, keyed, request=word, key=word).reasons[0]
    bounded = SPEC | {"period_start": "from", "period_end": "to"}
    unbounded = of_csv(tmp_path, bounded, **{"from": word, "to": word})
    assert (unbounded.reasons, unbounded.period) == ((), None)
    assert of_csv(tmp_path, bounded, **{"from": AT, "to": word}).reasons


@pytest.mark.parametrize(
    "text",
    [
        *("#N/A", "#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#NUM!", "#NULL!", "#SPILL!", "#NV", "#WERT!", "########"),
        *("[object Object]", '="007"', '=""', "1.7E12", "1.0E7", "-1.2345678E7", "1.2345678901234567e19"),
    ],
)
def test_what_stands_in_place_of_an_identifier_is_none_and_collapses_no_rows(tmp_path: Path, text: str) -> None:
    keyed = {name: column for name, column in SPEC.items() if name != "request_id"} | {"primary_key": "request"}
    for name, spec in (("customer", SPEC), ("request", SPEC), ("request", keyed)):
        (reason,) = of_csv(tmp_path, spec, **{name: text}).reasons
        assert "as_written: true" in reason
    as_written = SPEC | {"request_id": {"column": "request", "as_written": True}}
    assert of_csv(tmp_path, as_written, request=text).request_id == text


@pytest.mark.parametrize(
    "text",
    [
        *(
            "NA",
            "N/A",
            "n/a",
            "#N/A N/A",
            "-nan",
            "undefined",
            "nil",
            "<nil>",
            "%!s(<nil>)",
            "(null)",
            "none",
            "[NULL]",
        ),
        "00000000-0000-0000-0000-000000000000",
    ],
)
def test_what_another_program_writes_for_no_value_collapses_no_rows(tmp_path: Path, text: str) -> None:
    for name in ("customer", "request"):
        (reason,) = of_csv(tmp_path, **{name: text}).reasons
        assert "in place of a value" in reason
    as_written = SPEC | {"request_id": {"column": "request", "as_written": True}}
    assert of_csv(tmp_path, as_written, request=text).request_id == text
    assert of_csv(tmp_path, note=text).reasons == ()


def test_a_uuid_in_capitals_is_no_second_event_beside_the_same_one_in_small_letters(tmp_path: Path) -> None:
    small = "6f9619ff-8b86-d011-b42d-00cf4fc964ff"
    keyed = {name: column for name, column in SPEC.items() if name != "request_id"} | {"primary_key": "request"}
    for capitals in (small.upper(), small.replace("f", "F", 1)):
        for name in ("customer", "request"):
            (reason,) = of_csv(tmp_path, **{name: capitals}).reasons
            assert "is a UUID in capital letters" in reason
        made = of_csv(tmp_path, keyed, request=capitals)
        assert (made.reasons, made.request_id) == ((), of_csv(tmp_path, keyed, request=small).request_id)
        as_written = SPEC | {"request_id": {"column": "request", "as_written": True}}
        assert of_csv(tmp_path, as_written, request=capitals).request_id == capitals
    assert of_csv(tmp_path, request=small).request_id == small


@pytest.mark.parametrize("mark", ["\ufeff", "\u200b", "\u200e", "\u2060", "\u00ad"])
def test_an_identifier_with_a_mark_at_its_end_that_nobody_sees_is_no_new_customer(tmp_path: Path, mark: str) -> None:
    for name in ("customer", "request"):
        for text in (f"cus_1{mark}", f"{mark}cus_1"):
            (reason,) = of_csv(tmp_path, **{name: text}).reasons
            assert "begins or ends with a character that nobody sees" in reason
            assert reason.isprintable()
    assert of_csv(tmp_path, customer="a\u200db").gateway_customer_id == "a\u200db", "inside it is a letter's form"


@pytest.mark.parametrize("text", ["#1", "#ticket", "#a1", "=", "[1]", "12E34", "1E5C", "3e8", "2.5", "1.2.3e4"])
def test_an_identifier_that_only_begins_like_something_else_is_one(tmp_path: Path, text: str) -> None:
    said = of_csv(tmp_path, customer=text, request=text)
    assert (said.reasons, said.gateway_customer_id, said.request_id) == ((), text, text)


def test_the_words_for_null_are_those_that_the_mapping_names(tmp_path: Path) -> None:
    assert of_csv(tmp_path, SPEC | {"nulls": ["-", "n/a"]}, request="-").reasons
    assert of_csv(tmp_path, SPEC | {"nulls": ["-", "n/a"]}, request="NULL").request_id == "NULL"
    assert of_csv(tmp_path, SPEC | {"nulls": [None]}, request="NULL").reasons, "YAML reads NULL as null"


def test_what_pandas_writes_for_a_number_beside_an_empty_cell_is_no_other_identifier(tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"
    pd.DataFrame({"customer": [101, None], "request": ["a", "b"], "units": [1, 2], "at": [AT, AT]}).to_csv(
        path, index=False
    )
    first, second = readings(path)
    assert "'101.0' is a number as a spreadsheet or pandas writes it" in first.reasons[0]
    assert "is empty" in second.reasons[0]
    as_written = SPEC | {"gateway_customer_id": {"column": "customer", "as_written": True}}
    assert readings(path, as_written)[0].gateway_customer_id == "101.0"


@pytest.mark.parametrize(
    ("units", "text", "found"),
    [
        ({"thousands": ".", "decimal": ","}, "1.234.567", 1_234_567),
        ({"thousands": "."}, "1.000", 1000),
        ({"thousands": "."}, "1.000,0", 1000),
        ({"decimal": "."}, "1.000", 1),
        ({"decimal": ","}, "7,0", 7),
        ({"thousands": ","}, "1,000.0", 1000),
        ({"thousands": " "}, "12 000", 12_000),
        ({"thousands": "'"}, "12'000", 12_000),
        ({}, "1.000", "can be 1 or 1000"),
        ({}, "1.500", "can be 1500"),
        ({}, "1.000.000", "can be 1000000"),
        ({}, "1,000", "thousands:"),
        ({}, "0.000", "not above 0"),
        ({"thousands": "."}, "1.00", "plain digits"),
        ({"thousands": ".", "decimal": ","}, "10.00.000", "plain digits"),
        ({"thousands": ","}, "1,00", "plain digits"),
        ({"decimal": ","}, "1.000", "plain digits"),
        ({"default": 1}, "", 1),
        ({"default": 1}, "NULL", 1),
        ({}, "", "is empty"),
    ],
)
def test_a_quantity_with_separators_is_what_the_mapping_says_or_refused(
    tmp_path: Path, units: dict[str, Any], text: str, found: Any
) -> None:
    said = of_csv(tmp_path, quantity(units), units=text)
    if isinstance(found, str):
        assert found in said.reasons[0]
    else:
        assert (said.reasons, said.quantity) == ((), found)


def test_the_point_of_a_number_that_is_no_text_has_one_meaning(tmp_path: Path) -> None:
    assert of_json(tmp_path, '"units": 1.000').quantity == 1


def test_a_key_is_the_same_in_whichever_way_a_program_writes_it(tmp_path: Path) -> None:
    at = datetime(2025, 5, 17, 12, 0, 0, 500_000, tzinfo=UTC)
    numbers = [("csv", "7"), ("csv", "7.0"), ("json", "7"), ("json", "7.0"), ("json", '"7"'), ("parquet", 7)]
    numbers += [("parquet", 7.0), ("parquet", Decimal("7.00"))]
    instants: list[Any] = [
        *(("csv", f"2025-05-17T12:00:00.5{zone}") for zone in ("Z", "z", "+00:00", "+0000")),
        *(("csv", "2025-05-17 14:00:00.500+02:00"), ("json", '"2025-05-17T12:00:00.500Z"')),
        *(("parquet", at), ("parquet", pa.scalar(at, pa.timestamp("ns", "UTC")))),
    ]
    assert len({made(tmp_path, kind, value) for kind, value in numbers}) == 1
    assert len({made(tmp_path, kind, value) for kind, value in instants}) == 1
    assert made(tmp_path, "csv", "07") != made(tmp_path, "csv", "7")


def test_keys_that_differ_by_nanoseconds_are_two(tmp_path: Path) -> None:
    first, second = "2025-05-17T12:00:00.000000001Z", "2025-05-17T12:00:00.000000002Z"
    keys = {made(tmp_path, "csv", first), made(tmp_path, "csv", second)}
    nanos = pa.scalar(1_747_483_200_000_000_001, pa.timestamp("ns", "UTC"))
    assert len(keys) == 2
    assert made(tmp_path, "parquet", nanos) in keys


def test_a_key_that_is_a_time_without_a_zone_is_refused_unless_the_mapping_has_one(tmp_path: Path) -> None:
    naive = "2025-05-17 14:00:00"
    assert "has no time zone, so the row could get another id" in of_csv(tmp_path, KEYED, key=naive).reasons[0]
    zoned = KEYED | {"event_timestamp": {"column": "at", "zone": "Europe/Berlin"}}
    assert of_csv(tmp_path, zoned, key=naive).request_id == of_csv(tmp_path, KEYED, key=AT).request_id


def test_a_number_as_a_key_has_one_writing_or_is_refused(tmp_path: Path) -> None:
    assert of_csv(tmp_path, KEYED, key="1747483200.5").reasons == ()
    for text in ("1747483200.50", "7.10", "-0.250"):
        assert "another program" in of_csv(tmp_path, KEYED, key=text).reasons[0]
    for text in ("1.2.30", "1.10.0", "a.50"):
        assert of_csv(tmp_path, KEYED, key=text).reasons == ()


def test_a_key_is_one_instant_in_every_way_in_which_iso_8601_writes_it(tmp_path: Path) -> None:
    first = [
        *("2025-05-17T12:00:00Z", "20250517T120000Z", "2025-W20-6T12:00:00Z", "2025-137T12:00Z", "2025W206T1400+02"),
        *("2025-05-17T12:00:00,000Z", "2025-05-17 12:00:00.0 UTC"),
    ]
    assert len({made(tmp_path, "csv", text) for text in first}) == 1
    fine = ["2025-05-17T12:00:00,000000001Z", "2025-05-17T12:00:00.000000001Z", "20250517T120000.000000001Z"]
    assert len({made(tmp_path, "csv", text) for text in fine}) == 1
    assert made(tmp_path, "csv", fine[0]) != made(tmp_path, "csv", "2025-05-17T12:00:00,000000002Z")


def made(folder: Path, kind: str, value: Any) -> str:
    """The request id that is made from a key, which a program wrote into a file of this kind."""
    if kind == "csv":
        said = of_csv(folder, KEYED, key=value)
    elif kind == "json":
        said = of_json(folder, f'"key": {value}', mapping=KEYED)
    else:
        column = pa.array([value.as_py()], value.type) if isinstance(value, pa.Scalar) else pa.array([value])
        if isinstance(value, pa.TimestampScalar):
            column = pa.array([value.value], pa.int64()).cast(value.type)
        path = folder / "audit.parquet"
        pq.write_table(pa.table({name: [one] for name, one in ROW.items()} | {"key": column}), path)
        (said,) = readings(path, KEYED)
    assert said.reasons == ()
    return str(said.request_id)


def metadata(said: Any) -> str:
    """The metadata without their origin, as text."""
    assert said.reasons == ()
    return "{" + said.metadata.split("}, ", 1)[1]


def test_metadata_keep_what_was_written(tmp_path: Path) -> None:
    written = '"a": 1.10, "b": 12345678901234567890.123456789, "c": {"d": [0.1000]}, "e": {"f": 1, "f": 2}, "g": NaN'
    kept = metadata(of_json(tmp_path, written))
    assert kept == (
        '{"a": 1.10, "b": 12345678901234567890.123456789, "c": {"d": [0.1000]}, "e": "{\\"f\\": 1, \\"f\\": 2}", '
        '"g": "NaN"}'
    )
    own = of_json(tmp_path, '"m": "{\\"a\\": 1.10, \\"b\\": 9007199254740993.0}"', mapping=SPEC | {"metadata": "m"})
    assert metadata(own) == '{"a": 1.10, "b": 9007199254740993.0}'
    path = tmp_path / "audit.parquet"
    columns = {name: [value] for name, value in ROW.items()} | {
        "d": pa.array([Decimal("1.10")], pa.decimal128(9, 2)),
        "n": pa.array([1_747_483_200_000_000_001], pa.int64()).cast(pa.timestamp("ns", "UTC")),
        "i": pa.array([timedelta(days=1, seconds=1)], pa.duration("us")),
    }
    pq.write_table(pa.table(columns), path)
    assert metadata(readings(path)[0]) == (
        '{"d": 1.10, "n": "2025-05-17T12:00:00.000000001+00:00", "i": "1 day, 0:00:01"}'
    )


def test_metadata_keep_the_months_days_and_seconds_of_an_interval(tmp_path: Path) -> None:
    kind, span = pa.month_day_nano_interval(), pa.MonthDayNano([1, -2, 3_500_000_001])
    columns = {name: pa.array([value] * 2) for name, value in ROW.items()}
    columns |= {"i": pa.array([span, None], kind), "l": pa.array([[span], []], pa.list_(kind))}
    arrow, table = tmp_path / "audit.arrow", pa.table(columns)
    with pa.ipc.new_file(arrow, table.schema) as writer:
        writer.write_table(table)
    parquet = tmp_path / "audit.parquet"
    usual = ", ".join(f"'{value}' as {name}" for name, value in ROW.items())
    spans = f"select {usual}, interval '1 month 2 days 3.5 seconds' as i union all select {usual}, null"
    duckdb.sql(f"copy ({spans}) to '{parquet}' (format parquet)")

    assert list(map(metadata, readings(arrow))) == [
        '{"i": "P1M-2DT3.500000001S", "l": ["P1M-2DT3.500000001S"]}',
        '{"i": null, "l": []}',
    ]
    assert list(map(metadata, readings(parquet))) == ['{"i": "P1M2DT3.5S"}', '{"i": null}']


def test_a_row_that_is_nested_without_end_is_rejected_and_kills_no_batch(tmp_path: Path) -> None:
    deep = ['"x": ' + opening * depth + closing * depth for opening, closing in ("[]",) for depth in (201, 960, 9_000)]
    objects = ['"x": ' + '{"a":' * depth + "1" + "}" * depth for depth in (201, 960, 9_000)]
    for values in (*deep, *objects):
        assert "nested" in of_json(tmp_path, values).reasons[0]
    assert of_json(tmp_path, '"x": ' + "[" * 150 + "]" * 150).reasons == ()


_FINITE = st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=1, max_value=10**18)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    numbers=st.lists(_FINITE, min_size=1, max_size=5),
    ids=st.lists(st.integers(0, 2**70), min_size=5, max_size=5, unique=True),
    times=st.lists(
        st.datetimes(datetime(2000, 1, 1), datetime(2100, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001
        min_size=5,
        max_size=5,
    ),
)
def test_what_csv_json_and_parquet_writers_write_is_what_is_read(
    tmp_path: Path, numbers: list[Decimal], ids: list[int], times: list[datetime]
) -> None:
    rows = list(zip(numbers, ids, times, strict=False))
    expected = [(str(request), number, at) for number, request, at in rows]
    texts = io.StringIO()
    writer = csv.writer(texts)
    writer.writerow(["customer", "request", "units", "at"])
    writer.writerows([["c", request, number, at.isoformat()] for number, request, at in rows])
    (tmp_path / "a.csv").write_text(texts.getvalue())
    lines = [
        f'{{"customer": "c", "request": {request}, "units": {number}, "at": "{at.isoformat()}"}}\n'
        for number, request, at in rows
    ]
    (tmp_path / "a.ndjson").write_text("".join(lines))
    columns = {
        "customer": ["c"] * len(rows),
        "request": pa.array([Decimal(request) for _, request, _ in rows], pa.decimal128(38, 0)),
        "units": pa.array([number for number, _, _ in rows], pa.decimal128(38, 6)),
        "at": pa.array([at for _, _, at in rows], pa.timestamp("us", "UTC")),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    for name in ("a.csv", "a.ndjson", "a.parquet"):
        found = readings(tmp_path / name, quantity_type=NUMERIC)
        assert [(one.request_id, one.quantity, one.event_timestamp) for one in found] == expected, name


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(ids=st.lists(st.floats(allow_nan=True) | st.none(), min_size=1, max_size=4))
def test_an_identifier_from_a_frame_of_floats_is_exact_or_refused(tmp_path: Path, ids: list[float | None]) -> None:
    frame = pd.DataFrame({"customer": "c", "request": pd.Series(ids, dtype="float64"), "units": 1, "at": AT})
    frame.to_parquet(tmp_path / "a.parquet")
    for said, request in zip(readings(tmp_path / "a.parquet"), ids, strict=True):
        if request is not None and math.isfinite(request) and request == int(request) and abs(request) < 2**53:
            assert said.request_id == str(int(request))
        else:
            assert said.reasons


def test_a_number_of_four_bytes_is_the_one_that_was_written_and_a_time_keeps_its_nanoseconds(tmp_path: Path) -> None:
    short = pa.float32()
    columns = {name: [value] for name, value in ROW.items()} | {
        "units": pa.array([0.1], short),
        "time": pa.array([1], pa.time64("ns")),
        "in": pa.array(
            [{"list": [0.1, None], "at": 2}], pa.struct([("list", pa.list_(short)), ("at", pa.time64("ns"))])
        ),
        "none": pa.array([None], short),
    }
    pq.write_table(pa.table(columns), tmp_path / "audit.parquet")
    (said,) = readings(tmp_path / "audit.parquet", quantity_type=NUMERIC)
    assert said.quantity == Decimal("0.1")
    kept = json.loads(said.metadata or "")
    assert kept["time"] == "00:00:00.000000001"
    assert kept["in"] == {"list": [0.1, None], "at": "00:00:00.000000002"}
    (nested,) = readings(tmp_path / "audit.parquet", SPEC | {"quantity": "in.list.0"}, quantity_type=NUMERIC)
    assert nested.quantity == Decimal("0.1")


def test_a_map_of_texts_is_an_object_and_what_has_a_name_twice_keeps_both(tmp_path: Path) -> None:
    named = pa.map_(pa.string(), pa.int64())
    twins = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    columns = {name: [value] for name, value in ROW.items()} | {
        "map": pa.array([[("units", 7), ("more", 8)]], named),
        "twice": pa.array([[("units", 7), ("units", 9)]], named),
        "numbers": pa.array([[(1, 7), (2, 8)]], pa.map_(pa.int64(), pa.int64())),
        "twins": twins,
    }
    pq.write_table(pa.table(columns), tmp_path / "audit.parquet")
    (said,) = readings(tmp_path / "audit.parquet", SPEC | {"quantity": "map.units"})
    assert (said.quantity, said.reasons) == (7, ())
    (said,) = readings(tmp_path / "audit.parquet")
    kept = json.loads(said.metadata or "")
    assert kept["map"] == {"units": 7, "more": 8}
    assert kept["twice"] == '{"units": 7, "units": 9}'
    assert kept["numbers"] == [[1, 7], [2, 8]]
    assert kept["twins"] == '{"a": 1, "a": 2}'
    for path in ("twice.units", "twins.a"):
        (said,) = readings(tmp_path / "audit.parquet", SPEC | {"quantity": {"column": path, "default": 1}})
        assert "twice" in said.reasons[0]


def test_a_parquet_text_that_is_not_marked_as_one_is_rejected_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "audit.parquet"
    row = {name: [str(value).encode() if name == "customer" else value] for name, value in ROW.items()}
    pq.write_table(pa.table(row), path)

    (reason,) = readings(path)[0].reasons

    assert "is bytes, not text" in reason
    assert "write it as a string (STRING, UTF8), or give the rows by a query that casts it" in reason


def of_arrow(folder: Path, mapping: Any = SPEC, **columns: Any) -> list[Any]:
    """What the rows of an Arrow file say in which these columns stand beside or instead of the usual ones."""
    rows = len(next(iter(columns.values())))
    usual = {name: [one] * rows for name, one in ROW.items()} | {"request": [f"r{at}" for at in range(rows)]}
    path = folder / "audit.arrow"
    pyarrow.feather.write_feather(pa.table(usual | columns), path)
    return readings(path, mapping)


HOUR_TWICE = pa.array(
    [datetime(2025, 10, 26, 0, 30, tzinfo=UTC), datetime(2025, 10, 26, 1, 30, tzinfo=UTC)],
    pa.timestamp("us", "Europe/Berlin"),
)
"""Half past two in summer, and an hour later in winter."""


@pytest.mark.parametrize(
    ("at", "column"),
    [
        (HOUR_TWICE, "at"),
        (pa.StructArray.from_arrays([HOUR_TWICE], ["time"]), "at.time"),
        (pa.array([[one] for one in HOUR_TWICE.to_pylist()], pa.list_(HOUR_TWICE.type)), "at.0"),
    ],
)
def test_two_instants_that_a_clock_shows_alike_stay_two(tmp_path: Path, at: Any, column: str) -> None:
    said = of_arrow(tmp_path, SPEC | {"event_timestamp": column}, at=at)
    assert [one.event_timestamp.isoformat() for one in said] == [
        "2025-10-26T00:30:00+00:00",
        "2025-10-26T01:30:00+00:00",
    ]


def test_a_time_of_spark_and_hive_is_of_its_year_also_where_nanoseconds_end(tmp_path: Path) -> None:
    path = tmp_path / "audit.parquet"
    fine = pa.array([1_747_483_200_000_000_001, 1_747_483_200_000_000_002], pa.timestamp("ns"))
    far = [datetime(9999, 12, 31), datetime(1000, 1, 1), datetime(2600, 1, 1), datetime(2025, 5, 17, 12)]  # noqa: DTZ001
    zoned = SPEC | {"event_timestamp": {"column": "at", "zone": "UTC"}}

    def written(at: Any, **more: Any) -> list[Any]:
        rows = {name: [one] * len(at) for name, one in ROW.items()} | {"at": at, **more}
        pq.write_table(pa.table(rows), path, use_deprecated_int96_timestamps=True)
        return readings(path, zoned)

    assert [json.loads(one.metadata)["until"][-9:] for one in written(fine, until=fine)] == ["000000001", "000000002"]
    until = written([far[3]] * 4, until=pa.array(far, pa.timestamp("us")))
    assert [json.loads(one.metadata)["until"] for one in until] == [one.isoformat() for one in far]
    said = written(pa.array(far, pa.timestamp("us")))
    assert ["2000 to 2100" in "".join(one.reasons) for one in said] == [True, True, True, False]


def test_a_number_of_four_bytes_that_stands_for_several_is_no_identifier_no_quantity_and_no_time(
    tmp_path: Path,
) -> None:
    short = pa.array([2.0**24 - 1, 2.0**24, 2.0**24 + 1], pa.float32())
    for name in ("customer", "request", "units"):
        assert [bool(one.reasons) for one in of_arrow(tmp_path, **{name: short})] == [False, True, True]
    assert [bool(one.reasons) for one in of_arrow(tmp_path, units=pa.array([2047.0, 2048.0], pa.float16()))] == [
        False,
        True,
    ]
    nested = pa.StructArray.from_arrays([short], ["id"])
    assert [bool(one.reasons) for one in of_arrow(tmp_path, SPEC | {"request_id": "data.id"}, data=nested)] == [
        False,
        True,
        True,
    ]
    seconds = SPEC | {"event_timestamp": {"column": "at", "format": "unix_seconds"}}
    (said,) = of_arrow(tmp_path, seconds, at=pa.array([1_747_483_200.0], pa.float32()))
    assert "rounded" in said.reasons[0]


def test_what_a_dictionary_or_a_run_stands_for_is_read_as_the_value_itself(tmp_path: Path) -> None:
    tenths = pa.array([0.1, 0.1], pa.float32())
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), tenths[:1])
    for column in (tenths.dictionary_encode(), runs, pa.StructArray.from_arrays([tenths.dictionary_encode()], ["f"])):
        said = of_arrow(tmp_path, price=column)
        assert [json.loads(one.metadata, parse_float=str)["price"] for one in said] in (
            ["0.1", "0.1"],
            [{"f": "0.1"}] * 2,
        )


def test_a_time_before_1970_keeps_its_nanoseconds(tmp_path: Path) -> None:
    (said,) = of_arrow(tmp_path, born=pa.array([-1], pa.timestamp("ns", "UTC")))
    assert json.loads(said.metadata)["born"] == "1969-12-31T23:59:59.999999999+00:00"


def test_an_object_of_metadata_and_a_column_of_the_same_name_are_both_kept(tmp_path: Path) -> None:
    mapping = SPEC | {"metadata": "data.metadata"}
    said = of_json(
        tmp_path, '"id": "evt_1", "note": 1.10, "data": {"metadata": {"id": "own", "a": 2}}', mapping=mapping
    )
    kept = json.loads(said.metadata, parse_float=str)
    assert (kept["id"], kept["a"], kept["note"], kept["recon_columns"]) == ("own", 2, "1.10", {"id": "evt_1"})
    doubled = of_json(tmp_path, '"data": {"metadata": {"id": 1, "id": 2}}', mapping=mapping)
    assert "has a name twice" in doubled.reasons[0]
