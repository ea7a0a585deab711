"""Events named by their time, too: a file that cuts or rounds times inserted each of them once more, as usage."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recon_pipeline.core.backfill.cut_times import writings
from recon_pipeline.core.event_identity import EventIdentity, parse_event_identity
from recon_pipeline.sources import rows
from recon_pipeline.store.backfill.batches import Batch
from recon_pipeline_tests.backfill.inserting import SPEC, insert_file
from recon_pipeline_tests.reconciliation.billing import MAY, Billing

NAMED_BY_TIME = parse_event_identity("gateway_name,request_id,event_timestamp")
AND_BY_CUSTOMER = parse_event_identity("gateway_name,request_id,gateway_customer_id,event_timestamp")
REASONS = "select kind, array_to_string(reasons, ' & ') from recon.rejected_event where batch_id = %s order by ordinal"
RENAME = (
    "alter table billing_usage_events drop constraint billing_usage_events_gateway_name_request_id_key; "
    "create {} index on billing_usage_events (gateway_name, request_id, event_timestamp)"
)
EXACT = datetime(2025, 5, 17, 12, 0, 0, 123456, tzinfo=UTC)
ROUNDED_UP = datetime(2025, 5, 17, 12, 0, 0, 987654, tzinfo=UTC)
WHOLE = datetime(2025, 5, 17, 12, tzinfo=UTC)
CUT = {
    "to a millisecond": (EXACT, "2025-05-17T12:00:00.123Z"),
    "to a second": (EXACT, "2025-05-17T12:00:00Z"),
    "rounded to a millisecond": (ROUNDED_UP, "2025-05-17T12:00:00.988Z"),
    "rounded to a second": (ROUNDED_UP, "2025-05-17T12:00:01Z"),
    "half a millisecond rounded up": (WHOLE + timedelta(microseconds=500), "2025-05-17T12:00:00.001Z"),
    "from milliseconds to a second": (WHOLE + timedelta(milliseconds=999), "2025-05-17T12:00:00Z"),
}
APART = {
    "both exact": (EXACT, "2025-05-17T12:00:00.123457Z"),
    "both of milliseconds": (WHOLE + timedelta(milliseconds=123), "2025-05-17T12:00:00.124Z"),
    "both of seconds": (WHOLE, "2025-05-17T12:00:01Z"),
    "a millisecond that is no cut": (EXACT, "2025-05-17T12:00:00.124Z"),
    "a second that is no cut": (EXACT, "2025-05-17T12:00:01Z"),
    "the second before": (EXACT, "2025-05-17T11:59:59Z"),
    "less than half a millisecond": (WHOLE + timedelta(microseconds=499), "2025-05-17T12:00:00.001Z"),
}


@pytest.fixture(params=["unique", ""], ids=["unique", "not unique"])
def billing(request: pytest.FixtureRequest, billing: Billing) -> Billing:
    """A log whose owner names events by their time, too, whether it refuses a second one or not."""
    billing.connection.execute(RENAME.format(request.param).encode())
    return billing


def backfill(
    billing: Billing, folder: Path, *lines: str, identity: EventIdentity = NAMED_BY_TIME, dry_run: bool = False
) -> Batch:
    path = folder / "audit.csv"
    path.write_text("\n".join(("customer,request,units,at", *lines)) + "\n")
    return insert_file(billing.url, str(path), mapping=SPEC, event_identity=identity, dry_run=dry_run)


def outcome(batch: Batch) -> tuple[int, int, int, int]:
    return batch.inserted, batch.duplicate, batch.conflict, batch.rejected


def log(billing: Billing) -> Sequence[datetime]:
    return [time for (time,) in billing.query("select event_timestamp from billing_usage_events order by 1")]


def test_an_event_whose_time_is_cut_or_rounded_is_a_conflict_and_not_counted_again(
    billing: Billing, tmp_path: Path
) -> None:
    """Usage of 7 became 14."""
    lines: list[str] = []
    for case, (exact, cut) in CUT.items():
        billing.add_event("a", 7, request_id=case, event_timestamp=exact)
        billing.add_event("a", 7, request_id=f"{case} in log", event_timestamp=cut)
        lines += [f"a,{case},7,{cut}", f"a,{case} in log,7,{exact.isoformat()}", f"a,{case},7,{exact.isoformat()}"]
    before = billing.log_checksum()

    would = backfill(billing, tmp_path, *lines, dry_run=True)
    did = backfill(billing, tmp_path, *lines)

    assert outcome(would) == outcome(did) == (0, len(CUT), 2 * len(CUT), 0)
    assert billing.log_checksum() == before
    said = (
        "the log has this request id with another event_timestamp (one of the two times is the other, cut or rounded)"
    )
    assert {tuple(row) for row in billing.query(REASONS, did.batch_id)} == {
        ("conflict", f"{said}; that event stays as it is")
    }


def test_times_that_are_no_cut_of_each_other_name_two_events(billing: Billing, tmp_path: Path) -> None:
    lines: list[str] = []
    for case, (first, second) in APART.items():
        billing.add_event("a", 7, request_id=case, event_timestamp=first)
        lines += [f"a,{case},7,{second}", f"a,{case} new,7,{first.isoformat()}", f"a,{case} new,7,{second}"]

    would = backfill(billing, tmp_path, *lines, dry_run=True)
    did = backfill(billing, tmp_path, *lines)

    assert outcome(would) == outcome(did) == (len(lines), 0, 0, 0)


@pytest.mark.parametrize("chunk_rows", [1, 100])
def test_of_one_event_written_with_two_times_in_a_file_the_first_is_inserted(
    billing: Billing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_rows: int
) -> None:
    monkeypatch.setattr(rows, "CHUNK_ROWS", chunk_rows)
    lines: list[str] = []
    for case, (exact, cut) in CUT.items():
        lines += [f"a,{case},7,{exact.isoformat()}", f"a,{case},7,{cut}"]
        lines += [f"a,{case} 2,7,{cut}", f"a,{case} 2,7,{exact.isoformat()}", f"a,{case} 2,7,{cut}"]

    would = backfill(billing, tmp_path, *lines, dry_run=True)
    did = backfill(billing, tmp_path, *lines)

    assert outcome(would) == outcome(did) == (2 * len(CUT), len(CUT), 2 * len(CUT), 0)
    assert outcome(backfill(billing, tmp_path, *lines)) == (0, 3 * len(CUT), 2 * len(CUT), 0)


def test_a_cut_time_that_says_something_else_or_is_of_another_event_is_reported(
    billing: Billing, tmp_path: Path
) -> None:
    billing.add_event("a", 7, period=MAY, request_id="r", event_timestamp=EXACT)
    cut = CUT["to a millisecond"][1]

    lines = [f"a,r,8,{cut}", f"b,r,7,{cut}"]
    did = backfill(billing, tmp_path, *lines, identity=AND_BY_CUSTOMER)

    assert outcome(backfill(billing, tmp_path, *lines, identity=AND_BY_CUSTOMER, dry_run=True)) == (0, 1, 1, 0)
    assert outcome(did) == (1, 0, 1, 0)
    ((_, said),) = billing.query(REASONS, did.batch_id)
    assert "has this request id and gateway_customer_id with another quantity, event_timestamp (one of" in said


def test_a_cut_time_is_found_where_events_are_inserted_one_by_one(billing: Billing, tmp_path: Path) -> None:
    billing.query("alter table billing_usage_events add check (gateway_customer_id <> 'refused')")
    billing.add_event("a", 7, period=MAY, request_id="r", event_timestamp=EXACT)
    cut = CUT["to a second"][1]

    did = backfill(
        billing, tmp_path, f"refused,x,7,{cut}", f"a,r,7,{cut}", f"a,s,7,{EXACT.isoformat()}", f"a,s,7,{cut}"
    )

    assert outcome(did) == (1, 0, 2, 1)
    assert log(billing) == [EXACT, EXACT]


def test_an_event_with_a_cut_time_gets_the_period_that_the_log_gave_it(billing: Billing, tmp_path: Path) -> None:
    """Or else it was in conflict for its period, too, which nobody could make out of the file."""
    moved = (MAY[0] - timedelta(days=40), MAY[0] - timedelta(days=10))
    billing.add_event("a", 7, period=moved, request_id="r", event_timestamp=EXACT)

    did = backfill(billing, tmp_path, f"a,r,7,{CUT['to a second'][1]}")

    ((_, said),) = billing.query(REASONS, did.batch_id)
    assert "with another event_timestamp (one" in said


def test_where_times_do_not_name_events_a_cut_time_is_a_duplicate(billing: Billing, tmp_path: Path) -> None:
    billing.add_event("a", 7, period=MAY, request_id="r", event_timestamp=EXACT)
    lines = [f"a,r,7,{CUT['to a second'][1]}"]
    default = parse_event_identity("gateway_name,request_id")
    for dry_run in (True, False):
        assert outcome(backfill(billing, tmp_path, *lines, identity=default, dry_run=dry_run)) == (0, 1, 0, 0)


def test_an_instant_is_written_exactly_cut_and_rounded() -> None:
    assert {time.isoformat()[20:26] for time in writings(EXACT)} == {"123456", "123000", "00:00"}
    assert writings(WHOLE) == {WHOLE}
    assert WHOLE + timedelta(milliseconds=1) in writings(WHOLE + timedelta(microseconds=500))
    assert WHOLE + timedelta(milliseconds=1) not in writings(WHOLE + timedelta(microseconds=499))
