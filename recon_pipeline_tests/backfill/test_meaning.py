"""What a row means does not depend on where it stands, and nothing is assumed of a column that may be one of ours."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recon_pipeline.core.backfill.mapping import parse_mapping, parse_mapping_text
from recon_pipeline.core.backfill.quantities import QuantityRange
from recon_pipeline.core.backfill.reading import read_rows
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.sources import rows
from recon_pipeline.store.backfill.exports import read_export
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.backfill.inserting import SCOPE, SPEC, insert_file
from recon_pipeline_tests.backfill.reading import readings
from recon_pipeline_tests.reconciliation.billing import Billing

AT = "2025-05-17T12:00:00Z"
OURS = {
    "gateway_name": "stripe",
    "gateway_customer_id": "c",
    "usage_type": "remote_commands",
    "request_id": "r",
    "quantity": 3,
    "event_timestamp": AT,
}
HEADER = "customer,request,units,at"


def ndjson(folder: Path, *objects: Mapping[str, Any]) -> Path:
    path = folder / "audit.ndjson"
    path.write_text("".join(f"{json.dumps(one)}\n" for one in objects))
    return path


def csv_file(folder: Path, header: str, *lines: str) -> Path:
    path = folder / "audit.csv"
    path.write_text("\n".join((header, *lines)) + "\n")
    return path


def ours(number: int, *without: str, **more: Any) -> dict[str, Any]:
    row = {**OURS, "request_id": f"r{number}", **more}
    return {name: value for name, value in row.items() if name not in without}


def test_a_column_that_first_occurs_after_the_first_chunk_is_read_and_its_absence_is_no_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "CHUNK_ROWS", 2)
    spec = {name: name for name in OURS}
    path = ndjson(tmp_path, *(ours(number, "quantity") for number in range(3)), ours(3), ours(4))
    assert [one.quantity for one in readings(path, spec)] == [None, None, None, 3, 3]
    assert all("is empty" in one.reasons[0] for one in readings(path, spec)[:3])
    with pytest.raises(ConfigurationError, match="it has no column quantity"):
        readings(path, None)
    mixed = ndjson(tmp_path, ours(0), *(ours(number, "quantity") for number in range(1, 4)), ours(4))
    assert [one.quantity for one in readings(mixed, None)] == [3, None, None, None, 3]


def test_periods_that_first_occur_after_the_first_chunk_are_read_without_a_mapping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "CHUNK_ROWS", 2)
    bounds = {"period_start": "2025-05-10T00:00:00Z", "period_end": "2025-06-10T00:00:00Z"}
    path = ndjson(tmp_path, *(ours(number) for number in range(3)), ours(3, **bounds))
    found = [one.period for one in readings(path, None)]
    assert found == [None] * 3 + [(datetime(2025, 5, 10, tzinfo=UTC), datetime(2025, 6, 10, tzinfo=UTC))]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(order=st.permutations(range(8)), chunk_rows=st.integers(1, 9))
def test_a_row_says_the_same_wherever_it_stands(tmp_path: Path, order: list[int], chunk_rows: int) -> None:
    bounds = {"period_start": "2025-05-10T00:00:00Z", "period_end": "2025-06-10T00:00:00Z"}
    objects = [
        *(ours(0, quantity=2), ours(1, "quantity", units=7), ours(2, **bounds), ours(3, period_start=AT)),
        *(ours(4, metadata={"a": 1}), ours(5, quantity=None), ours(6, note="x"), ours(7, "request_id")),
    ]
    spec = {name: name for name in (*OURS, "period_start", "period_end", "metadata")} | {"primary_key": "usage_type"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "CHUNK_ROWS", chunk_rows)
        said = readings(ndjson(tmp_path, *(objects[index] for index in order)), spec)
    alone = [readings(ndjson(tmp_path, ours(0, **bounds, metadata={}), one), spec)[1] for one in objects]
    lines = {index: said[place] for place, index in enumerate(order)}
    assert {i: (one.reasons, one.quantity, one.period, one.request_id) for i, one in lines.items()} == {
        i: (one.reasons, one.quantity, one.period, one.request_id) for i, one in enumerate(alone)
    }


@pytest.mark.parametrize("name", ["Quantity", "QUANTITY", " quantity", "quan tity", "qty", "Qty", "quantity\u200b"])
@pytest.mark.parametrize("beside", [True, False])
def test_a_column_that_looks_like_quantity_is_asked_about_with_the_mapping_to_write(
    tmp_path: Path, name: str, beside: bool
) -> None:
    row = ours(1, *(() if beside else ("quantity",)), **{name: 20})
    for path in (
        ndjson(tmp_path, row),
        csv_file(tmp_path, ",".join(row), ",".join(map(str, row.values()))),
    ):
        with pytest.raises(ConfigurationError) as asked:
            readings(path, None)
        assert f"its column {name!r} looks like quantity" in asked.value.what
        draft = parse_mapping_text(asked.value.fix.partition("\n")[2], name="the draft")
        assert [one.quantity for one in readings(path, draft)] == [20]


def test_a_column_that_looks_like_ours_in_a_later_row_rejects_that_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "CHUNK_ROWS", 2)
    path = ndjson(tmp_path, ours(1), ours(2), ours(3), ours(4, Quantity=20), ours(5), ours(6, Quantity=20))
    said = [one.reasons for one in readings(path, None)]
    expected = ("its column 'Quantity' looks like quantity; write a mapping that says what it is",)
    assert said == [(), (), (), expected, (), expected]


def test_a_draft_fills_in_what_exports_call_our_columns(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "Gateway,customer,type,id,units,timestamp", f"stripe,c,remote_commands,r,4,{AT}")
    with pytest.raises(ConfigurationError) as asked:
        readings(path, None)
    draft = parse_mapping_text(asked.value.fix.partition("\n")[2], name="the draft")
    assert [(one.quantity, one.request_id) for one in readings(path, draft)] == [(4, "r")]


def test_a_mapping_without_a_quantity_is_refused_and_says_how_to_count_each_row_as_one() -> None:
    without = {name: field for name, field in SPEC.items() if name != "quantity"}
    with pytest.raises(ConfigurationError, match=r"quantity: is missing; .*\{value: 1\}"):
        parse_mapping(without)
    assert parse_mapping(without | {"quantity": {"value": 1}}).quantity.value == 1


@pytest.mark.parametrize(
    "text",
    [
        "request_id: a\nquantity: units\nrequest_id: b\n",
        "quantity: {column: a, column: b}\n",
        "'nulls': [a]\nnulls: [b]\n",
    ],
)
def test_a_name_that_a_mapping_has_twice_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is written twice.*line [1-3]"):
        parse_mapping_text(text, name="audit.yaml")
    assert parse_mapping_text("a: &x {value: b}\nc:\n  <<: *x\n", name="audit.yaml")["c"] == {"value": "b"}


@pytest.mark.parametrize("name", ["Request", "requestId", "rid"])
def test_a_mapped_name_that_no_row_has_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    row = {"customer": "c", name: "r", "units": 1, "at": AT, "key": 1}
    spec = SPEC | {"request_id": "request_id", "primary_key": "key"}
    with pytest.raises(ConfigurationError, match="has no column 'request_id'"):
        readings(ndjson(tmp_path, row), spec)
    monkeypatch.setattr(rows, "CHUNK_ROWS", 2)
    with pytest.raises(ConfigurationError, match="request_id"):
        readings(ndjson(tmp_path, *[row] * 5), spec)


NESTED = {
    "gateway_name": {"value": "stripe"},
    "usage_type": {"value": "remote_commands"},
    "gateway_customer_id": "data.object.customer",
    "request_id": "id",
    "quantity": "data.object.usage.0.tokens",
    "event_timestamp": {"column": "data.created", "format": "unix_seconds"},
    "metadata": "data.object.labels",
}
DATA = {
    "created": 1_747_483_200,
    "object": {"customer": "cus_1", "usage": [{"tokens": 7}], "labels": {"a": "b"}},
}


def test_a_path_reads_nested_objects_of_json_structs_of_parquet_and_columns_with_json(tmp_path: Path) -> None:
    parquet = tmp_path / "audit.parquet"
    pq.write_table(pa.Table.from_pylist([{"id": "e1", "data": DATA}]), parquet)
    quoted = json.dumps(DATA).replace('"', '""')
    for path in (
        ndjson(tmp_path, {"id": "e1", "data": DATA}),
        parquet,
        csv_file(tmp_path, "id,data", f'e1,"{quoted}"'),
        ndjson(tmp_path, {"id": "e1", "data": json.dumps(DATA)}),
    ):
        (said,) = readings(path, NESTED)
        assert said.reasons == ()
        assert (said.gateway_customer_id, said.quantity) == ("cus_1", 7)
        assert said.event_timestamp == datetime(2025, 5, 17, 12, tzinfo=UTC)
        assert json.loads(said.metadata or "")["a"] == "b"


def test_a_path_into_nothing_is_empty_and_a_column_with_the_whole_name_comes_first(tmp_path: Path) -> None:
    (said,) = readings(ndjson(tmp_path, {"id": "e1", "data": {**DATA, "object": {"customer": "c"}}}), NESTED)
    assert [reason for reason in said.reasons if "data.object.usage.0.tokens) is empty" in reason]
    whole = {"a.b": "c", "a": {"b": "other"}, "request": "r", "units": 1, "at": AT}
    (said,) = readings(ndjson(tmp_path, whole), SPEC | {"gateway_customer_id": "a.b"})
    assert said.gateway_customer_id == "c"
    with pytest.raises(ConfigurationError, match=r"has no column 'b\.c'"):
        readings(csv_file(tmp_path, HEADER, f"c,r,1,{AT}"), SPEC | {"quantity": "b.c"})


UNREACHED = {
    "cut JSON": ('{"tokens": 7, "x', "is no JSON"),
    "a text of Python": ("{'tokens': 7}", "is no JSON"),
    "words": ("hello", "is no JSON"),
    "a name that occurs twice": ('{"tokens": 7, "tokens": 9}', "has 'tokens' twice"),
    "no object": ("7", "has no names"),
    "a list": ('[{"tokens": 7}]', "has no names"),
    "too deep": ('{"tokens": 7, "x": ' + "[" * 300 + "]" * 300 + "}", "nested more than"),
}


@pytest.mark.parametrize("case", UNREACHED)
def test_what_a_path_cannot_be_followed_in_is_no_empty_cell_and_gets_no_default(tmp_path: Path, case: str) -> None:
    text, reason = UNREACHED[case]
    columns = {"customer": "c", "request": "r", "at": AT, "data": text, "k": "c"}
    pq.write_table(pa.Table.from_pylist([columns]), tmp_path / "audit.parquet")
    for path in (ndjson(tmp_path, columns), tmp_path / "audit.parquet"):
        for field in (
            {"quantity": {"column": "data.tokens", "default": 1}},
            {"quantity": {"value": 1}, "request_id": "data.tokens", "primary_key": "k"},
            {"quantity": {"value": 1}, "request_id": "none", "primary_key": "data.tokens"},
            {"quantity": {"value": 1}, "metadata": "data.tokens"},
            {"quantity": {"value": 1}, "skip_when": {"data.tokens": 7}},
        ):
            mapping = {name: column for name, column in (SPEC | field).items() if column != "none"}
            (said,) = readings(path, mapping)
            assert any(reason in one and "cannot be looked up" in one for one in said.reasons), (field, said.reasons)


@pytest.mark.parametrize("text", ["", "NULL", "null", "[]", "{}", '{"other": 1}', '{"tokens": null}'])
def test_a_path_into_nothing_gets_the_default(tmp_path: Path, text: str) -> None:
    row = {"customer": "c", "request": "r", "at": AT, "data": text}
    (said,) = readings(ndjson(tmp_path, row), SPEC | {"quantity": {"column": "data.tokens", "default": 3}})
    assert (said.quantity, said.reasons) == (3, ())


def test_a_row_whose_quantity_has_another_name_gets_no_default(tmp_path: Path) -> None:
    row = {"customer": "c", "at": AT}
    rows = ({"request": "1", "units": 5}, {"request": "2", "Units": 5}, {"request": "3"}, {"request": "4", "Units": 5})
    path = ndjson(tmp_path, *(row | one for one in rows))
    found = readings(path, SPEC | {"quantity": {"column": "units", "default": 1}})
    assert [one.quantity for one in found if not one.reasons] == [5, 1]
    assert "'Units' looks like units" in found[1].reasons[0]


def test_a_number_in_a_path_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "audit.ndjson"
    path.write_text(f'{{"customer": "c", "request": "r", "at": "{AT}", "data": {{"n": 2.9999999999999999999}}}}\n')
    assert readings(path, SPEC | {"quantity": "data.n"})[0].reasons


@pytest.mark.parametrize(
    ("skip_when", "left"),
    [
        ({"units": 0}, "bcdef"),
        ({"units": [0, 1]}, "bcdf"),
        ({"units": 0, "customer": "x"}, "abcdefg"),
        ({"units": None}, "abdefg"),
        ({"customer": "c", "units": "0.00"}, "bcdef"),
    ],
)
def test_rows_that_are_there_for_completeness_are_left_out_and_counted(
    billing: Billing, tmp_path: Path, skip_when: dict[str, Any], left: str
) -> None:
    units = {"a": "0", "b": "-0.5", "c": "", "d": "x", "e": "1", "f": "2", "g": "0.000"}
    path = csv_file(tmp_path, HEADER, *(f"c,{request},{number},{AT}" for request, number in units.items()))
    batch = insert_file(billing.url, str(path), mapping=SPEC | {"skip_when": skip_when})
    assert (batch.rows_read, batch.skipped) == (len(left), len(units) - len(left))
    assert batch.adds_up
    assert batch.inserted == len(set(left) & set("ef"))


def test_a_source_of_which_every_row_is_left_out_is_done_with_nothing(billing: Billing, tmp_path: Path) -> None:
    path = csv_file(tmp_path, HEADER, f"c,r,0,{AT}")
    batch = insert_file(billing.url, str(path), mapping=SPEC | {"skip_when": {"units": 0}})
    assert (batch.outcome, batch.rows_read, batch.skipped) == ("done", 0, 1)


def test_a_mapped_period_that_is_empty_in_some_rows_is_found_for_them(billing: Billing, tmp_path: Path) -> None:
    bounds = "2025-05-10T00:00:00Z,2025-06-10T00:00:00Z"
    lines = [f"a,r1,1,{AT},{bounds}", f"b,r2,1,{AT},,", f"b,r3,1,{AT},NULL,\\N", f"b,r4,1,{AT},2025-05-01T00:00:00Z,"]
    path = csv_file(tmp_path, f"{HEADER},from,to", *lines)
    mapping = SPEC | {"period_start": "from", "period_end": "to"}
    batch = insert_file(billing.url, str(path), mapping=mapping)
    assert (batch.inserted, batch.rejected) == (3, 1)
    found = billing.query("select request_id, period_start, period_end from billing_usage_events order by 1")
    may = (datetime(2025, 5, 1, tzinfo=UTC), datetime(2025, 6, 1, tzinfo=UTC))
    own = (datetime(2025, 5, 10, tzinfo=UTC), datetime(2025, 6, 10, tzinfo=UTC))
    assert [tuple(one) for one in found] == [("r1", *own), ("r2", *may), ("r3", *may)]
    (reasons,) = billing.query("select reasons from recon.rejected_event")[0]
    assert reasons == ["period_end (column to) is empty, and the other bound is not"]
    again = insert_file(billing.url, str(path), mapping=mapping)
    assert (again.duplicate, again.rejected) == (3, 1)


def test_a_request_id_that_was_used_again_at_another_time_is_a_conflict_and_no_duplicate(
    billing: Billing, tmp_path: Path
) -> None:
    mapping = SPEC | {"period": {"calendar_month": "UTC"}}
    first = csv_file(tmp_path, HEADER, f"c,1,1,{AT}")
    assert insert_file(billing.url, str(first), mapping=mapping).inserted == 1
    within = csv_file(tmp_path, HEADER, "c,1,1,2025-05-16T12:00:00Z", "c,1,1,2025-05-18T12:00:00Z")
    assert insert_file(billing.url, str(within), mapping=mapping).duplicate == 2
    beyond = csv_file(tmp_path, HEADER, "c,1,1,2025-05-16T11:59:59Z", "c,1,1,2025-05-18T12:00:01Z")
    batch = insert_file(billing.url, str(beyond), mapping=mapping)
    assert (batch.duplicate, batch.conflict) == (0, 2)
    reasons = billing.query("select reasons from recon.rejected_event where batch_id = %s", batch.batch_id)
    assert all("with another event_timestamp; that event stays" in one.reasons[0] for one in reasons)
    within_one_file = csv_file(tmp_path, HEADER, f"c,2,1,{AT}", "c,2,1,2025-05-20T12:00:00Z")
    batch = insert_file(billing.url, str(within_one_file), mapping=mapping)
    assert (batch.inserted, batch.conflict) == (1, 1)


def test_metadata_are_in_the_log_as_they_were_written(billing: Billing, tmp_path: Path) -> None:
    path = tmp_path / "audit.ndjson"
    path.write_text(
        f'{{"customer": "c", "request": "r", "units": 1, "at": "{AT}", "price": 0.10, "huge": 1e300000, '
        '"long": 12345678901234567890.123456789, "none": NaN}\n'
    )
    assert insert_file(billing.url, str(path)).inserted == 1
    kept = billing.value("select (metadata - 'recon_backfill')::text from billing_usage_events")
    assert json.loads(kept, parse_float=str) == {
        "price": "0.10",
        "huge": "1E+300000",
        "long": "12345678901234567890.123456789",
        "none": "NaN",
    }


def test_json_and_intervals_of_a_table_are_read_as_they_were_written(billing: Billing) -> None:
    billing.query(
        "create table audit as select 'c' as customer, 'r' as request, timestamptz '2025-05-17 12:00+00' as at, "
        "interval '1 mon' as span, '{\"n\": 2.9999999999999999999, \"price\": 0.10}'::jsonb as data"
    )
    source = read_export(BillingDatabase(billing.url), "table:audit", chunk_rows=10)
    spec, numeric = parse_mapping(SPEC | {"quantity": "data.n"}), QuantityRange.of("numeric")
    ((said,),) = [one.readings for one in read_rows(source, spec, batch_id="b", quantity_range=numeric, scope=SCOPE)]
    assert said.quantity == Decimal("2.9999999999999999999")
    kept = json.loads(said.metadata or "", parse_float=str)
    assert (kept["span"], kept["data"]["price"]) == ("1 mon", "0.10")
