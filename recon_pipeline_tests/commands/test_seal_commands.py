"""`recon seal`, `corrections`, `reopen` and `verify-seals`: how finance closes a month."""

import csv
import json
import resource
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recon_pipeline_tests.commands.conftest import recon
from recon_pipeline_tests.reconciliation.billing import Billing, customers
from recon_pipeline_tests.support.assets import run_assets

CUSTOMERS = customers(3)
ONE = CUSTOMERS[0]
MAY = ("--period", "2025-05")


@pytest.fixture
def sealed(billing: Billing) -> Billing:
    """Three customers used 10 in May, which is sealed."""
    for customer in CUSTOMERS:
        billing.record(customer, 10)
    assert run_assets().record.outcome == "clean"
    done = recon("seal", *MAY, "--reason", "TICKET-7: invoices are sent")
    assert (done.exit_code, done.err) == (0, "")
    assert done.out.startswith("Sealed 2025-05 of stripe:remote_commands: 3 keys, 3 events, 30 units.\nChecksum ")
    assert done.out.endswith("Its counters follow the seal from now on; recon corrections shows what comes after.\n")
    return billing


def test_a_seal_can_be_read_by_programs(billing: Billing) -> None:
    billing.record(ONE, 10)
    done = recon("seal", *MAY, "--json").json
    (one,) = done["sealed"]
    assert done["success"] is True
    assert (one["partition"], one["key_count"], one["usage_count"], one["reason"]) == ("2025-05", 1, 10, None)
    assert one["acted_by"]
    assert len(one["checksum"]) == 64


def test_refusals_have_exit_codes_and_are_json_where_that_is_asked_for(billing: Billing) -> None:
    billing.record(ONE, 10)
    billing.set_counter(ONE, 9)
    refused = recon("seal", *MAY, "--json")
    assert refused.exit_code == 1
    assert refused.json["error"].startswith("2025-05 of stripe:remote_commands cannot be sealed: 1 counters are not")
    assert refused.json["changed"] == "No counter was changed, and no seal was written."
    assert refused.json["what_to_do"] == (
        "recon reconcile --period 2025-05 --full, then recon seal --period 2025-05 again."
    )
    for unknown in ("2024-12", "2999-01", "may"):
        assert recon("seal", "--period", unknown).exit_code == 2
    recon("retention", "--before", "2025-06", "--reason", "12 months")
    assert "2025-05 cannot be sealed: the months before 2025-06 are no longer in the log" in recon("seal", *MAY).said


def test_corrections_are_a_table_json_csv_and_parquet(sealed: Billing, tmp_path: Path) -> None:
    assert recon("corrections", *MAY).out == (
        "What was sealed is exactly what is there now: nothing is to be corrected.\n"
    )
    sealed.record(ONE, 5, request_id="=late")
    sealed.query("delete from billing_usage_events where gateway_customer_id = %s", CUSTOMERS[1])
    shown = recon("corrections", *MAY)
    assert f"{ONE} 2025-05-01 2025-06-01 10 15 5 1 came later (=late)" in shown.said
    assert f"{CUSTOMERS[1]} 2025-05-01 2025-06-01 10 0 -10 1 fewer than sealed" in shown.said

    found = recon("corrections", *MAY, "--json").json
    assert found["count"] == 2
    keys = {one["gateway_customer_id"]: one for one in found["corrections"]}
    assert (keys[ONE]["sealed_sum"], keys[ONE]["sum_now"], keys[ONE]["difference"]) == ("10", "15", "5")
    (event,) = keys[ONE]["events"]
    assert (event["request_id"], event["quantity"], event["what"]) == ("=late", "5", "came later")

    as_csv, as_parquet = tmp_path / "corrections.csv", tmp_path / "corrections.parquet"
    for output in (as_csv, as_parquet):
        done = recon("corrections", *MAY, "--output", str(output))
        assert f"2 keys written to {output}" in done.out
    with as_csv.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["difference"] for row in rows] == ["5", "-10"]
    assert [json.loads(row["events"]) for row in rows] == [[event], []]
    table = pq.read_table(as_parquet).to_pylist()
    assert [(row["gateway_customer_id"], row["difference"], row["sealed_events"]) for row in table] == [
        (ONE, 5, 1),
        (CUSTOMERS[1], -10, 1),
    ]


@pytest.mark.parametrize("name", ["corrections.csv", "corrections.parquet"])
def test_a_file_of_corrections_is_written_as_a_whole_or_stays_as_it_was(
    sealed: Billing, tmp_path: Path, name: str
) -> None:
    sealed.record(ONE, 5, request_id="late")
    file = tmp_path / name
    file.write_text("of last month")
    recon("corrections", *MAY, "--output", str(file.with_stem("before")))  # which loads all that writes files
    file.with_stem("before").unlink()
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, unlimited[1]))  # as on a disk that is full
    try:
        refused = recon("corrections", *MAY, "--output", str(file))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert (refused.exit_code, f"--output {file}: " in refused.said, "Nothing was written." in refused.said) == (
        2, True, True
    )  # fmt: skip
    assert file.read_text() == "of last month"
    assert [*tmp_path.iterdir()] == [file]


def test_corrections_of_an_open_month_and_files_of_other_kinds_are_refused(billing: Billing, tmp_path: Path) -> None:
    billing.record(ONE, 10)
    refused = recon("corrections", *MAY)
    assert (refused.exit_code, "2025-05 is not sealed, so it has no corrections" in refused.said) == (1, True)
    for name in ("corrections.xlsx", "nowhere/corrections.csv"):
        refused = recon("corrections", *MAY, "--output", str(tmp_path / name))
        assert refused.exit_code == 2
        assert "cannot be written: it ends in .csv or .parquet, in a folder that is there." in refused.said


def test_a_month_is_reopened_with_a_reason_and_the_next_seal_says_what_changed(sealed: Billing) -> None:
    assert recon("reopen", *MAY).exit_code == 2
    assert recon("reopen", *MAY, "--reason", " ").exit_code == 2
    done = recon("reopen", *MAY, "--reason", "TICKET-8: the export was short")
    assert done.out == (
        "Reopened 2025-05 of stripe:remote_commands: TICKET-8: the export was short\n"
        "Its counters follow the log again, from the next run on; what left the log meanwhile waits for an approval.\n"
    )
    assert recon("reopen", *MAY, "--reason", "again").exit_code == 1
    sealed.record(ONE, 5)
    again = recon("seal", *MAY)
    assert "(TICKET-8: the export was short); since the seal before, 1 keys changed, by +5 units in all." in again.said
    verified, *head = recon("verify-seals").out.splitlines()
    assert verified == "All 3 seals fit: chain, sums and checksums; the events of the 1 in force are in the log."
    assert head == [f"Newest chain: {recon('verify-seals', '--json').json['head']}"]


def test_what_left_a_month_that_is_reopened_is_shown_by_one_run_and_approved_for_the_next(sealed: Billing) -> None:
    sealed.query("update billing_usage_events set quantity = 4 where gateway_customer_id = %s", ONE)
    assert recon("reconcile", *MAY).exit_code == 0
    assert recon("reopen", *MAY, "--reason", "TICKET-8").exit_code == 0
    shown = recon("reconcile", *MAY)
    assert shown.exit_code == 1
    assert "2025-05: 0 events of 6 units, of 1 counters." in shown.said
    assert recon("reconcile", *MAY, "--approve", "TICKET-8").exit_code == 0
    assert sealed.counters()[ONE] == 4
    assert recon("seal", *MAY).exit_code == 0


def test_a_chain_that_was_kept_proves_that_no_seal_was_taken_out(sealed: Billing) -> None:
    kept = recon("verify-seals", "--json").json["head"]
    assert recon("verify-seals", "--chain", kept).exit_code == 0
    refused = recon("verify-seals", "--chain", "0" * 64)
    assert (refused.exit_code, "seals were taken out, or it is of another database." in refused.said) == (1, True)


def test_a_month_that_is_declared_gone_is_not_reopened(sealed: Billing) -> None:
    assert recon("retention", "--before", "2025-06", "--reason", "older than a year").exit_code == 0
    refused = recon("reopen", *MAY, "--reason", "TICKET-9")
    assert refused.exit_code == 1
    assert "2025-05 is not reopened: the months before 2025-06 are no longer in the log" in refused.said
    sealed.query("delete from billing_usage_events")
    assert "; 1 are of months declared gone (recon retention)." in recon("verify-seals").said
    assert recon("corrections", *MAY).exit_code == 1


def test_a_sum_is_never_cut_in_the_table_of_corrections(sealed: Billing) -> None:
    for number in range(4):
        sealed.record(ONE, 2_000_000_000, request_id=f"a-very-long-request-id-of-a-gateway-{number}")
    assert "8000000010" in recon("corrections", *MAY).out


def test_seals_that_do_not_fit_are_named_with_exit_code_1(sealed: Billing) -> None:
    assert recon("verify-seals", "--json").json["success"] is True
    sealed.query("delete from billing_usage_events where gateway_customer_id = %s", ONE)
    found = recon("verify-seals")
    assert found.exit_code == 1
    assert (
        "The log does not have what was sealed of 2025-05 of stripe:remote_commands any more: 1 keys differ, the first "
        f"of customer {ONE} (1 events of 10 units were sealed, 0 of 0 are there)."
    ) in found.said
    assert "recon corrections --period 2025-05 shows the keys" in found.said


def test_explain_says_when_a_month_was_sealed_and_what_came_after(sealed: Billing) -> None:
    said = recon("explain", "--customer", ONE, *MAY).said
    assert "counter 10: equals the sealed sum sealed 10 in 1 events, by " in said
    assert "since then" not in said
    sealed.record(ONE, 5)
    said = recon("explain", "--customer", ONE, *MAY).said
    assert "counter 15: 5 above the sealed sum" in said
    assert "since then +5 units, +1 events in the log: recon corrections" in said
    (one,) = recon("explain", "--customer", ONE, *MAY, "--json").json["explanations"]
    assert (one["seal"]["usage_count"], one["seal"]["event_count"]) == (10, 1)


def test_status_says_the_newest_sealed_month(sealed: Billing) -> None:
    assert "The newest sealed month is 2025-05; sealed in all: 1." in recon("status").said
    assert recon("status", "--json").json["newest_sealed_month"] == "2025-05"
    recon("reopen", *MAY, "--reason", "TICKET-8")
    assert recon("status", "--json").json["newest_sealed_month"] is None


def test_a_backfill_that_reaches_a_sealed_month_inserts_its_events_says_so_and_moves_no_counter(
    sealed: Billing, tmp_path: Path
) -> None:
    export = tmp_path / "late.csv"
    export.write_text(
        "gateway_name,gateway_customer_id,usage_type,request_id,quantity,period_start,period_end,event_timestamp\n"
        f"stripe,{ONE},remote_commands,late-1,45,2025-05-01T00:00:00Z,2025-06-01T00:00:00Z,2025-05-07T12:00:00Z\n"
    )
    said = "Sealed: 2025-05. Events of these months change no counter: recon corrections shows them."
    sealed.subscribe("somebody")
    planned = recon("backfill-events", str(export), "--dry-run", "--json").json
    assert (planned["sealed_months"], planned["plan"]["over_quota"]) == (["2025-05"], [])
    done = recon("backfill-events", str(export))
    assert (done.exit_code, said in done.said) == (0, True), done.said
    assert sealed.counter(ONE) == 10
    (one,) = recon("corrections", *MAY, "--json").json["corrections"]
    assert (one["difference"], [event["request_id"] for event in one["events"]]) == ("45", ["late-1"])


def test_an_undo_leaves_repairs_of_a_sealed_month_and_says_so(sealed: Billing) -> None:
    sealed.set_counter(ONE, 3)
    run = run_assets().run_id
    assert recon("pause", "--reason", "TICKET-9").exit_code == 0
    assert "1 more are of sealed months and stay" in recon("undo", run, "--reason", "TICKET-9", "--dry-run").said
    undone = recon("undo", run, "--reason", "TICKET-9", "--json")
    assert (undone.exit_code, undone.json["undone"], undone.json["sealed"]) == (1, 0, 1)
    assert undone.json["not_undone"][0]["outcome"] == "sealed"
    assert sealed.counter(ONE) == 10
