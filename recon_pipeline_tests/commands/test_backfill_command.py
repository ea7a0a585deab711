"""`recon backfill-events`: each row of an export ends in one way, nothing is counted twice, and counters follow."""

import csv
import gzip
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dagster import AssetKey, AssetRecordsFilter, DagsterInstance

from recon_pipeline_tests.commands.conftest import CommandResult, MakeBilling, recon
from recon_pipeline_tests.reconciliation.billing import JUNE, MAY, Billing

MAPPING = """
gateway_name: {value: stripe}
usage_type: {value: remote_commands}
gateway_customer_id: customer
request_id: request
primary_key: id
quantity: units
event_timestamp: at
"""
JSON_KEYS = {"success", "batch_id", "rows_read", "inserted", "duplicate", "conflict", "rejected", "reconcile"}
FIGURES = ("rows_read", "inserted", "duplicate", "conflict", "rejected")
IN_MAY = "2025-05-17T12:00:00Z"


@pytest.fixture
def mapping(tmp_path: Path) -> str:
    path = tmp_path / "mapping.yaml"
    path.write_text(MAPPING)
    return str(path)


def row(number: int, customer: str = "a", *, units: Any = 2, at: Any = IN_MAY, request: str = "") -> dict[str, Any]:
    return {
        "id": number,
        "customer": customer,
        "request": request,
        "units": units,
        "at": at,
        "device": f"pump {number}",
    }


def written(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a file of the kind that its name says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
        return str(path)
    if ".ndjson" in path.name:
        text = "".join(json.dumps(one) + "\n" for one in rows)
    else:
        lines = [list(rows[0]), *(list(one.values()) for one in rows)]
        text = "".join(",".join(f'"{value}"' for value in line) + "\n" for line in lines)
    packed = {".gz": gzip.compress, ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True)}
    path.write_bytes(packed.get(path.suffix, lambda data: data)(text.encode()))
    return str(path)


def figures(output: CommandResult) -> tuple[int, ...]:
    return tuple(output.json[name] for name in FIGURES)


def test_with_settle_seconds_a_backfill_ends_with_its_events_counted(
    make_billing: MakeBilling, mapping: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended clean while the counter had not moved: what the application has counted lately hid what was missing."""
    monkeypatch.setenv("RECON_SETTLE_SECONDS", "60")
    for template in ("prepared", "prepared_full"):
        billing = make_billing(template=template)
        billing.record("a", 100)
        source = written(tmp_path / f"{template}.csv", [row(1), row(2), row(3, "b", units=7)])

        output = recon("backfill-events", source, "--mapping", mapping, "--period", "2025-05", "--json")

        assert (output.exit_code, output.json["reconcile"]["rows_repaired"]) == (0, 2), output.said
        assert billing.counters() == {"a": 104, "b": 7} == billing.event_sums()


def test_missing_events_are_inserted_counted_and_named_after_their_source(
    billing: Billing, mapping: str, tmp_path: Path
) -> None:
    billing.record("a", 5)
    source = written(tmp_path / "audit.csv", [row(1), row(2), row(3, "b", units=7)])
    output = recon("backfill-events", source, "--mapping", mapping, "--period", "2025-05", "--json")
    assert output.exit_code == 0, output.said
    assert set(output.json) >= JSON_KEYS
    assert figures(output) == (3, 3, 0, 0, 0)
    assert (output.json["reconcile"]["rows_repaired"], output.json["reconcile"]["partitions"]) == (2, ["2025-05"])
    assert billing.counters() == {"a": 9, "b": 7} == billing.event_sums()
    metadata = billing.value("select metadata from billing_usage_events where gateway_customer_id = 'b'")
    origin = metadata.pop("recon_backfill")
    assert metadata == {"device": "pump 3"}
    assert origin == {"batch_id": output.json["batch_id"], "source": source, "line": 4}


def test_the_same_rows_in_any_form_and_order_are_inserted_once(billing: Billing, mapping: str, tmp_path: Path) -> None:
    rows = [row(number, f"c{number % 3}", request="" if number % 2 else f"r{number}") for number in range(1, 40)]
    packed = written(tmp_path / "1.csv.gz", rows)
    first = recon("backfill-events", packed, "--mapping", mapping, "--json", "--no-reconcile")
    assert figures(first) == (39, 39, 0, 0, 0), first.said
    before = billing.log_checksum()
    timed = [one | {"at": datetime(2025, 5, 17, 12, tzinfo=UTC)} for one in rows]
    for name, again in (("2.ndjson.zst", rows[::-1]), ("3.parquet", timed), ("4.csv", rows[10:] + rows[:20])):
        output = recon(
            "backfill-events", written(tmp_path / name, again), "--mapping", mapping, "--json", "--no-reconcile"
        )
        assert output.exit_code == 0, output.said
        assert figures(output) == (len(again), 0, len(again), 0, 0)
        assert output.json["reconcile"] is None
    assert billing.log_checksum() == before


def test_a_file_s_credits_are_inserted_where_they_are_declared_and_its_zeros_where_the_log_takes_them(
    billing: Billing, mapping: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    billing.query("alter table billing_usage_events drop constraint billing_usage_events_quantity_check")
    source = written(
        tmp_path / "1.csv", [row(1, units="9"), row(2, units="-4"), row(3, units="0"), row(4, units="-1.5")]
    )
    refused = recon("backfill-events", source, "--mapping", mapping, "--period", "2025-05", "--json")
    assert figures(refused) == (4, 2, 0, 0, 2), refused.said
    assert billing.counters() == {"a": 9}
    monkeypatch.setenv("RECON_NEGATIVE_QUANTITIES", "sum")

    output = recon("backfill-events", source, "--mapping", mapping, "--period", "2025-05", "--json")

    assert figures(output) == (4, 1, 2, 0, 1), output.said
    assert billing.counters() == {"a": 5}


def test_every_row_ends_in_one_way_and_those_not_taken_can_be_fixed_and_sent_again(
    billing: Billing, mapping: str, tmp_path: Path
) -> None:
    billing.record("a", 5, request_id="live")
    billing.query("update billing_usage_events set event_timestamp = '2025-05-04Z'")
    bad = {
        "1e3": "scientific",
        "1.5": "fraction",
        "-1": "RECON_NEGATIVE_QUANTITIES",
        "0": "above 0",
        "NaN": "is empty",
        str(2**31): "too large for",
    }
    rows = [
        row(1),
        row(2, request="live", units=5, at="2025-05-03T00:00:00Z"),
        row(3, request="live", units=6, at="2025-05-03T00:00:00Z"),
        *(row(10 + number, units=units) for number, units in enumerate(bad)),
        row(20, at="2025-05-17 12:00"),
        row(21, at="17/05/2025", units="x"),
        row(22, customer=""),
        row(23, customer="a\tb"),
        row(24, at="2031-01-01T00:00:00Z"),
    ]
    source = written(tmp_path / "audit.csv", rows)
    output = recon("backfill-events", source, "--mapping", mapping, "--json")
    assert output.exit_code == 1
    assert figures(output) == (len(rows), 1, 1, 1, len(rows) - 3)
    assert billing.counters() == {"a": 7}

    export = tmp_path / "rejected.csv"
    shown = recon("rejected", output.json["batch_id"][:8], "--output", str(export), "--json").json["rows"]
    reasons = [" & ".join(one["reasons"]) for one in shown]
    assert shown[0]["kind"] == "conflict"
    assert (shown[0]["stays"]["quantity"], shown[0]["row"]["units"]) == (5, "6")
    for said, expected in zip(reasons[1 : 1 + len(bad)], bad.values(), strict=True):
        assert expected in said
    assert "has no time zone" in reasons[7]
    assert "units" in reasons[8]
    assert "column at" in reasons[8], "every reason is reported"
    assert ["is empty" in reasons[9], "control character" in reasons[10], "2031-01" in reasons[11]] == [True] * 3

    with export.open(newline="") as file:
        fixed = [one | {"units": "1", "at": IN_MAY, "customer": "z"} for one in csv.DictReader(file)]
    again = recon("backfill-events", written(export, fixed[1:]), "--mapping", mapping, "--json")
    assert again.exit_code == 0, again.said
    assert figures(again) == (len(rows) - 3, len(rows) - 3, 0, 0, 0)
    assert billing.counters() == {"a": 7, "z": len(rows) - 3}
    assert "recon_reasons" not in billing.value("select string_agg(metadata::text, '') from billing_usage_events")


@pytest.mark.parametrize("ending", ["ndjson", "csv"])
def test_a_rejected_row_is_written_out_with_all_its_digits(
    billing: Billing, mapping: str, tmp_path: Path, ending: str
) -> None:
    source, export = tmp_path / "audit.ndjson", tmp_path / f"rejected.{ending}"
    source.write_text(json.dumps(row(1, units=0)).replace('"units": 0', '"units": 2.9999999999999999999') + "\n")
    output = recon("backfill-events", str(source), "--mapping", mapping, "--json", "--no-reconcile")
    assert figures(output) == (1, 0, 0, 0, 1)
    recon("rejected", output.json["batch_id"][:8], "--output", str(export))
    assert "2.9999999999999999999" in export.read_text()


def test_a_dry_run_shows_months_customers_and_who_would_go_over_quota_and_changes_nothing(
    billing: Billing, mapping: str, tmp_path: Path
) -> None:
    billing.record("a", 40)
    billing.subscribe("b", period=JUNE)
    rows = [
        row(1, units=9),
        row(2, "a", units=1),
        row(2, "a", units=1),
        row(3, "b", units=500, at="2025-06-30T23:00:00Z"),
    ]
    before = billing.log_checksum()
    source = written(tmp_path / "audit.csv", rows)
    output = recon("backfill-events", source, "--mapping", mapping, "--dry-run", "--json")
    assert output.exit_code == 0, output.said
    assert figures(output) == (4, 3, 1, 0, 0)
    plan = output.json["plan"]
    assert [(one["partition"], one["outcome"], one["events"]) for one in plan["months"]] == [
        ("2025-05", "duplicate", 1),
        ("2025-05", "inserted", 2),
        ("2025-06", "inserted", 1),
    ]
    assert [(one["gateway_customer_id"], one["usage_limit"]) for one in plan["over_quota"]] == [("a", 50)]
    assert plan["customers"][0]["gateway_customer_id"] == "b"
    assert billing.log_checksum() == before
    assert "a: 40 to 50, limit 50" in recon("backfill-events", source, "--mapping", mapping, "--dry-run").said


def test_a_period_is_taken_from_columns_else_from_what_is_known_else_from_the_subscription_else_the_month(
    billing: Billing, mapping: str, tmp_path: Path
) -> None:
    """A file that is loaded again after the renewal changes nothing; an event of nobody's period is rejected."""
    last, current, week = (
        (datetime(2025, first, 10, tzinfo=UTC), datetime(2025, end, 10 + days, tzinfo=UTC))
        for first, end, days in ((4, 5, 0), (5, 6, 0), (5, 5, 7))
    )
    billing.record("b", 5, period=last)
    billing.subscribe("b", period=current)
    rows = [row(1, "a"), row(2, "b"), row(3, "b", at="2025-05-09T00:00:00Z"), row(4, "b", at="2025-06-10T00:00:00Z")]
    source = written(tmp_path / "1.csv", rows)
    output = recon("backfill-events", source, "--mapping", mapping, "--json")
    assert figures(output) == (4, 3, 0, 0, 1), output.said
    assert [billing.counters(period=period) for period in (MAY, current, last)] == [{"a": 2}, {"b": 2}, {"b": 7}]
    shown = recon("rejected", output.json["batch_id"]).said
    assert "log and counters know no period of this customer" in shown
    assert "map period_start and period_end" in shown
    billing.query("update billing_subscriptions set current_period_start = %s, current_period_end = %s", *JUNE)
    assert figures(recon("backfill-events", source, "--mapping", mapping, "--json", "--no-reconcile"))[1:4] == (0, 3, 0)
    Path(mapping).write_text(f"{MAPPING}\nperiod_start: from\nperiod_end: to\n")
    columns = {"from": week[0].isoformat(), "to": week[1].isoformat()}
    recon("backfill-events", written(tmp_path / "2.csv", [row(5, "b") | columns]), "--mapping", mapping)
    assert billing.counters(period=week) == {"b": 2}


def test_rows_of_other_months_than_asked_for_are_rejected(billing: Billing, mapping: str, tmp_path: Path) -> None:
    source = written(tmp_path / "audit.csv", [row(1), row(2, at="2025-06-01T00:00:00Z")])
    output = recon("backfill-events", source, "--mapping", mapping, "--period", "2025-06", "--json")
    assert (output.exit_code, figures(output)) == (1, (2, 1, 0, 0, 1))
    shown = recon("rejected", output.json["batch_id"])
    assert "its billing month 2025-05 is not among the requested ones (2025-06)" in shown.said
    assert output.json["batch_id"][:8] in recon("backfills").out


def test_each_month_of_a_backfill_shows_in_dagster_what_was_inserted_in_it(
    billing: Billing, run_history: DagsterInstance, mapping: str, tmp_path: Path
) -> None:
    source = written(tmp_path / "audit.csv", [row(1), row(2), row(3, at="2025-06-01T00:00:00Z")])
    assert recon("backfill-events", source, "--mapping", mapping, "--json").exit_code == 0
    of_asset = AssetRecordsFilter(AssetKey("backfilled_events"), asset_partitions=["2025-04", "2025-05", "2025-06"])
    found = [one.asset_materialization for one in run_history.fetch_materializations(of_asset, limit=3).records]
    inserted = {one.partition: one.metadata["inserted"].value for one in found if one is not None}
    assert inserted == {"2025-04": 0, "2025-05": 2, "2025-06": 1}


def test_a_table_of_the_same_database_is_a_source(billing: Billing, tmp_path: Path, mapping: str) -> None:
    billing.query(
        "create table audit as select n as id, 'a' as customer, null::text as request, 1 as units, "
        "timestamptz '2025-05-17 12:00+00' as at from generate_series(1, 25) as n"
    )
    output = recon("backfill-events", "table:audit", "--mapping", mapping, "--json", "--no-reconcile")
    assert (output.exit_code, figures(output)) == (0, (25, 25, 0, 0, 0)), output.said
    again = recon(
        "backfill-events", "query:select * from audit where id < 5", "--mapping", mapping, "--json", "--no-reconcile"
    )
    assert figures(again) == (4, 0, 4, 0, 0)
    for source, said in (("table:nowhere", "no table 'nowhere'"), ("query:delete from audit", "it can only read")):
        failed = recon("backfill-events", source, "--mapping", mapping, "--json", "--no-reconcile")
        assert failed.exit_code != 0
        assert said in failed.said
    assert billing.value("select count(*) from audit") == 25


FOREIGN_KEY = """
    create table billing_customers (id text primary key);
    insert into billing_customers values ('a');
    alter table billing_usage_events
        add foreign key (gateway_customer_id) references billing_customers on delete cascade;
    alter table billing_usage_events add check (quantity <> 13);
"""
PARTITIONED = """
    drop table billing_usage_events cascade;
    create table billing_usage_events (
        id uuid not null default gen_random_uuid(), gateway_name text not null, gateway_customer_id text not null,
        usage_type text not null, request_id text not null, quantity numeric(12,2) not null,
        period_start timestamptz not null, period_end timestamptz not null, event_timestamp timestamptz,
        metadata jsonb, created_at timestamptz default now()
    ) partition by range (period_start);
    create table events_rest partition of billing_usage_events default;
    create index on billing_usage_events (request_id);
"""


def test_what_the_log_itself_refuses_rejects_that_row_and_no_other(
    make_billing: MakeBilling, mapping: str, tmp_path: Path
) -> None:
    billing = make_billing(FOREIGN_KEY)
    rows = [row(1), row(2, "ghost", units="x"), row(3, units=13), row(4)]
    source = written(tmp_path / "audit.csv", rows)
    output = recon("backfill-events", source, "--mapping", mapping, "--json", "--no-reconcile")
    assert (output.exit_code, figures(output)) == (1, (4, 2, 0, 0, 2)), output.said
    shown = recon("rejected", output.json["batch_id"], "--json").json["rows"]
    assert ["billing_customers has no customer 'ghost'" in shown[0]["reasons"][1], len(shown[0]["reasons"])] == [
        True,
        2,
    ]
    assert "violates check constraint" in shown[1]["reasons"][0]
    assert billing.value("select count(*) from billing_usage_events") == 2


def test_a_partitioned_log_without_a_unique_key_takes_each_request_once(
    make_billing: MakeBilling, mapping: str, tmp_path: Path
) -> None:
    billing = make_billing(PARTITIONED)
    rows = [row(1, units="1.25"), row(2, units="1.255"), row(1, units="1.25"), row(3, units="1.5", request="r")]
    source = written(tmp_path / "audit.csv", rows)
    output = recon("backfill-events", source, "--mapping", mapping, "--json", "--no-reconcile")
    assert figures(output) == (4, 2, 1, 0, 1), output.said
    again = recon("backfill-events", source, "--mapping", mapping, "--json", "--no-reconcile")
    assert figures(again) == (4, 0, 3, 0, 1)
    assert billing.value("select count(*) from billing_usage_events") == 2


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.csv", b"", "is empty"),
        ("header.csv", b"id,customer,request,units,at\n", "holds not one row"),
        ("doubled.csv", b"id,customer,customer,request,units,at\n1,a,a,,1,x\n", "twice"),
        ("missing.csv", b"id,Customer,request,units,at\n1,a,,1,x\n", "did you mean 'Customer'?"),
        ("utf16.csv", "id,customer\n1,a\n".encode("utf-16"), "encoding: utf-16"),
        ("truncated.parquet", b"PAR1 and no more of it", "cannot be read, or is truncated"),
        ("truncated.csv.gz", gzip.compress(b"id,customer,request,units,at\n" * 9, mtime=0)[:-12], "is truncated"),
        ("array.json", b'[{"id": 1}]', "It has id."),
        ("page.csv", b"<!doctype html><title>Sign in</title>", "is an HTML page"),
    ],
)
def test_a_file_that_cannot_be_used_says_why_and_nothing_is_inserted(
    billing: Billing, mapping: str, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    output = recon("backfill-events", str(tmp_path / name), "--mapping", mapping, "--json", "--no-reconcile")
    assert (output.exit_code, output.json["success"]) == (1, False), output.said
    assert said in output.json["error"] + output.json["what_to_do"]
    assert billing.value("select count(*) from billing_usage_events") == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gateway_name: [", "is not YAML"),
        ("- a", "is not a mapping of names"),
        (MAPPING.replace("units", "{column: units, round: maybe}"), "quantity.round"),
        (f"{MAPPING}\nperod_start: x", "did you mean period_start?"),
        (f"{MAPPING}\nperiod_start: x", "period_start and period_end go together"),
        (
            f"{MAPPING}\nperiod: {{calendar_month: Asia/Tokio}}",
            "period.calendar_month: 'Asia/Tokio' is not a time zone",
        ),
        (f"{MAPPING}\nperiod: {{}}\nperiod_start: x\nperiod_end: y", "leave out period"),
        (f"{MAPPING}\nallow: time_in_past", "allow.0"),
        (
            MAPPING.replace("request_id: request", "").replace("primary_key: id", ""),
            "neither request_id nor primary_key",
        ),
        (MAPPING.replace("event_timestamp: at", "event_timestamp: {column: at, zone: Mars/One}"), "is not a time zone"),
    ],
)
def test_a_wrong_mapping_is_refused_with_the_place_of_the_mistake(
    billing: Billing, mapping: str, tmp_path: Path, text: str, said: str
) -> None:
    Path(mapping).write_text(text)
    output = recon("backfill-events", written(tmp_path / "a.csv", [row(1)]), "--mapping", mapping, "--json")
    assert output.exit_code == 2
    assert said in output.json["error"]


def test_a_repair_beyond_the_budgets_is_blocked_after_the_insert_and_approve_lets_it_through(
    billing: Billing, mapping: str, tmp_path: Path
) -> None:
    source = written(tmp_path / "audit.csv", [row(number, f"c{number}") for number in range(60)])
    command = ("backfill-events", source, "--mapping", mapping, "--json", "--period", "2025-05")
    output = recon(*command, RECON_MAX_REPAIRS="10")
    assert (output.exit_code, output.json["reconcile"]["blocked"]) == (3, True), output.said
    assert (billing.counters(), figures(output)[:2]) == ({}, (60, 60))
    approved = recon(*command, "--approve", "INC-1", RECON_MAX_REPAIRS="10")
    assert (approved.exit_code, figures(approved)[2]) == (0, 60), approved.said
    assert len(billing.counters()) == 60


def test_the_output_names_every_file_of_a_folder_that_was_not_read(
    billing: Billing, mapping: str, tmp_path: Path
) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    written(folder / "part-0", [row(1), row(2)])
    (folder / "_SUCCESS").touch()
    output = recon("backfill-events", str(folder), "--mapping", mapping, "--json", "--no-reconcile")
    assert figures(output) == (2, 2, 0, 0, 0), output.said
    (unread,) = output.json["files_not_read"]
    assert (Path(unread["name"]).name, unread["reason"]) == ("_SUCCESS", "_SUCCESS is hidden, as for Spark and Arrow")
    shown = recon("backfill-events", str(folder), "--mapping", mapping, "--dry-run")
    assert "not read: " in shown.said
    (folder / "_SUCCESS").rename(folder / "done")
    failed = recon("backfill-events", str(folder), "--mapping", mapping, "--json", "--no-reconcile")
    assert (failed.exit_code, "done is empty" in failed.json["error"]) == (1, True)
    assert billing.value("select array_agg(outcome order by started_at) from recon.backfill_batch")[-1] == "failed"
