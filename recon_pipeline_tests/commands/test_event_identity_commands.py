"""What names an event, as commands say it: init and doctor to the letter, and a backfill by the same identity."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from recon_pipeline.settings import read_settings
from recon_pipeline_tests.backfill.inserting import insert_file
from recon_pipeline_tests.commands.conftest import CommandResult, MakeBilling, recon
from recon_pipeline_tests.commands.modes import finding
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.reconciliation.test_event_identity import BY_TIME, BY_USAGE_TYPE, INDEXED, UNIQUE
from recon_pipeline_tests.reconciliation.test_table_shapes import NO_UNIQUE
from recon_pipeline_tests.support.assets import run_assets

BY_CUSTOMER = UNIQUE.format("gateway_name, gateway_customer_id, request_id")
LOG = "billing_usage_events"
MAPPING = """
gateway_name: {value: stripe}
usage_type: type
gateway_customer_id: customer
request_id: request
quantity: units
event_timestamp: at
period_start: start
period_end: end
"""
AT = "2025-05-17T12:00:00Z"
LATER = "2025-05-18T12:00:00Z"
Row = dict[str, Any]
FIGURES = ("inserted", "duplicate", "conflict", "rejected")


def last_line(output: CommandResult) -> str:
    """What init ends with, but for what the first run asks."""
    return [line for line in output.out.splitlines() if not line.startswith("The first run asks")][-1]


def test_init_ends_with_the_two_ways_to_declare_where_the_log_declares_a_wider_key(make_billing: MakeBilling) -> None:
    make_billing(BY_USAGE_TYPE + INDEXED, template="billing")

    output = recon("init")

    assert output.exit_code == 0
    assert last_line(output) == (
        "billing_usage_events has a unique key on gateway_name, request_id, usage_type, which admits several events "
        "with the same gateway_name, request_id, and RECON_EVENT_IDENTITY=gateway_name,request_id says that these are "
        "one event. Drifted counters whose events share these are left as they are. If they are several events: set "
        "RECON_EVENT_IDENTITY=gateway_name,request_id,usage_type, then recon init. If they are one: create unique "
        "index concurrently on billing_usage_events (gateway_name, request_id);"
    )
    declared = recon("init", RECON_EVENT_IDENTITY="usage_type, gateway_name, request_id")
    assert last_line(declared).endswith("Runs will be incremental: they read what is new in the log.")
    assert "says that these are one event" not in declared.said


def test_doctor_fails_with_the_two_ways_to_declare_where_the_log_declares_a_wider_key(
    make_billing: MakeBilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_billing(BY_TIME + INDEXED)

    found = finding("event identity")

    assert found == {
        "requirement": "event identity",
        "verdict": "fail",
        "detail": "billing_usage_events has a unique key on gateway_name, request_id, event_timestamp, which admits "
        "several events with the same gateway_name, request_id, and RECON_EVENT_IDENTITY=gateway_name,request_id says "
        "that these are one event. Drifted counters whose events share these are left as they are",
        "mend": "If they are several events: set RECON_EVENT_IDENTITY=gateway_name,request_id,event_timestamp, then "
        "recon init. If they are one: give the log a unique key on (gateway_name, request_id), which takes a log that "
        "is partitioned by no other columns.",
    }
    monkeypatch.setenv("RECON_EVENT_IDENTITY", "gateway_name,request_id,event_timestamp")
    assert finding("event identity") == {
        "requirement": "event identity",
        "verdict": "pass",
        "detail": "gateway_name, request_id, event_timestamp: unique by constraint",
        "mend": "",
    }


@pytest.mark.parametrize(
    ("shape", "detail"),
    [
        (
            NO_UNIQUE + INDEXED,
            "gateway_name, request_id: not unique by constraint, so repeated events are found by index and counted "
            "once",
        ),
        (
            NO_UNIQUE,
            "gateway_name, request_id: neither unique nor indexed, so repeated events are found by reading the whole "
            "log, which is right but slow",
        ),
    ],
)
def test_doctor_only_notes_that_no_key_declares_what_names_an_event(
    make_billing: MakeBilling, shape: str, detail: str
) -> None:
    make_billing(shape)

    found = finding("event identity")

    assert (found["verdict"], found["detail"]) == ("note", detail)


def test_an_identity_of_other_columns_is_refused_with_those_that_are_allowed() -> None:
    of_quantity = "gateway_name,request_id,quantity"
    output = recon("reconcile", "--period", "2025-05", "--json", RECON_EVENT_IDENTITY=of_quantity)

    assert output.exit_code == 2
    assert output.json["error"] == (
        "RECON_EVENT_IDENTITY is 'gateway_name,request_id,quantity'. It must name gateway_name and request_id, and may "
        "add usage_type, gateway_customer_id, period_start, period_end, event_timestamp and created_at, nothing else."
    )


def exported(tmp_path: Path, rows: Sequence[Row]) -> str:
    export = tmp_path / "export.ndjson"
    span = {"start": "2025-05-01T00:00:00Z", "end": "2025-06-01T00:00:00Z"}
    every = {"type": "remote_commands", "units": 2, "at": AT} | span
    export.write_text("".join(json.dumps(every | row) + "\n" for row in rows))
    return str(export)


def backfill(tmp_path: Path, rows: Sequence[Row], *options: str) -> dict[str, int]:
    """How the rows ended."""
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    asked = ("--mapping", str(tmp_path / "mapping.yaml"), "--period", "2025-05", "--json")
    output = recon("backfill-events", exported(tmp_path, rows), *asked, *options)
    return {name: output.json[name] for name in FIGURES}


def insert(billing: Billing, tmp_path: Path, rows: Sequence[Row]) -> dict[str, int]:
    """The same, by the code of the command's step alone."""
    said = read_settings()
    batch = insert_file(
        billing.url,
        exported(tmp_path, rows),
        mapping=yaml.safe_load(MAPPING),
        scope=said.scope,
        event_identity=said.event_identity,
    )
    return {name: getattr(batch, name) for name in FIGURES}


TWO_OF_ONE_REQUEST = {
    "usage_type": ({"customer": "a", "request": "r"}, {"customer": "a", "request": "r", "type": "sms_messages"}),
    "gateway_customer_id": ({"customer": "a", "request": "r"}, {"customer": "b", "request": "r"}),
    "event_timestamp": ({"customer": "a", "request": "r"}, {"customer": "a", "request": "r", "at": LATER}),
}


@pytest.mark.parametrize("is_declared", [True, False], ids=["unique", "not unique"])
@pytest.mark.parametrize("column", TWO_OF_ONE_REQUEST)
def test_a_backfill_tells_events_apart_by_the_same_identity(
    make_billing: MakeBilling, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, column: str, is_declared: bool
) -> None:
    shapes = {"usage_type": BY_USAGE_TYPE, "gateway_customer_id": BY_CUSTOMER, "event_timestamp": BY_TIME}
    monkeypatch.setenv("RECON_SCOPE", "stripe:remote_commands,stripe:sms_messages")
    monkeypatch.setenv("RECON_EVENT_IDENTITY", f"gateway_name,request_id,{column}")
    billing = make_billing(shapes[column] if is_declared else NO_UNIQUE + INDEXED)
    first, second = TWO_OF_ONE_REQUEST[column]

    other = {"units": 9}

    assert insert(billing, tmp_path, [first]) == {"inserted": 1, "duplicate": 0, "conflict": 0, "rejected": 0}
    preview = backfill(tmp_path, [second, first | other, second], "--dry-run")
    assert preview == {"inserted": 1, "duplicate": 1, "conflict": 1, "rejected": 0}
    assert insert(billing, tmp_path, [first, second, second]) == preview | {"duplicate": 2, "conflict": 0}
    again = insert(billing, tmp_path, [second | other, first])
    assert again == {"inserted": 0, "duplicate": 1, "conflict": 1, "rejected": 0}
    assert billing.value(f"select count(*) from {LOG}") == 2
    assert run_assets().success
    assert billing.value("select sum(usage_count) from billing_usage_counters") == 4


def test_where_the_log_refuses_a_row_the_others_are_told_apart_by_the_same_identity(
    make_billing: MakeBilling, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RECON_SCOPE", "stripe:remote_commands,stripe:sms_messages")
    monkeypatch.setenv("RECON_EVENT_IDENTITY", "gateway_name,request_id,usage_type")
    billing = make_billing(f"{NO_UNIQUE + INDEXED} alter table {LOG} add check (gateway_customer_id <> 'refused')")
    first, second = TWO_OF_ONE_REQUEST["usage_type"]

    figures = backfill(tmp_path, [first, {"customer": "refused", "request": "x"}, second, second])

    assert figures == {"inserted": 2, "duplicate": 1, "conflict": 0, "rejected": 1}
    assert billing.value(f"select count(*) from {LOG}") == 2
    assert billing.value("select sum(usage_count) from billing_usage_counters") == 4


def test_a_backfill_of_what_is_told_apart_by_created_at_inserts_nothing_twice(
    make_billing: MakeBilling, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RECON_EVENT_IDENTITY", "gateway_name,request_id,created_at")
    billing = make_billing(UNIQUE.format("gateway_name, request_id, created_at"))
    billing.add_event("a", 2, request_id="r", event_timestamp=AT)

    figures = backfill(tmp_path, [{"customer": "a", "request": "r"}, {"customer": "a", "request": "new"}])

    assert figures == {"inserted": 1, "duplicate": 1, "conflict": 0, "rejected": 0}
    assert backfill(tmp_path, [{"customer": "a", "request": "new"}])["duplicate"] == 1
