"""Crashes, overlap and hostile files: no request is inserted twice, and every row ends in exactly one way."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recon_pipeline.core.errors import ReconError
from recon_pipeline.sources import rows
from recon_pipeline_tests.backfill import inserting
from recon_pipeline_tests.backfill.inserting import insert_file
from recon_pipeline_tests.commands.conftest import prepared_template
from recon_pipeline_tests.reconciliation.billing import MAY, Billing, connected
from recon_pipeline_tests.support.postgres import PostgresServer

HEADER = "customer,request,units,at"
RECORD = """
    select record_billing_usage_event(
        'stripe', %s, 'remote_commands', %s, %s, %s, %s, p_event_timestamp => '2025-05-17T12:00:00Z'
    )
"""
COUNT = "select count(*) from billing_usage_events"


@pytest.fixture(scope="module")
def fuzzed(postgres_server: PostgresServer) -> Iterator[Billing]:
    url = postgres_server.create_database(prepared_template(postgres_server))
    with connected(url, autocommit=True) as connection:
        yield Billing(url, connection)


def audit(path: Path, numbers: list[int]) -> str:
    lines = [f"c{number % 7},r{number},{1 + number % 3},2025-05-17T12:00:00Z" for number in numbers]
    path.write_text("\n".join((HEADER, *lines)) + "\n")
    return str(path)


def test_a_killed_backfill_leaves_whole_chunks_and_the_same_command_finishes_it(
    billing: Billing, tmp_path: Path
) -> None:
    source = audit(tmp_path / "audit.csv", list(range(200)))
    program = [sys.executable, "-m", inserting.__name__, billing.url, source, "30", "90"]
    assert subprocess.run(program, check=False, timeout=120).returncode == -signal.SIGKILL
    assert billing.value(COUNT) == 90
    (figures,) = billing.query("select outcome, rows_read, inserted, partitions from recon.backfill_batch")
    assert tuple(figures) == ("running", 90, 90, ["2025-05"])
    batch = insert_file(billing.url, source)
    assert (batch.inserted, batch.duplicate, batch.partitions) == (110, 90, ["2025-05"])
    assert billing.value("select count(distinct request_id) from billing_usage_events") == billing.value(COUNT) == 200


def test_two_backfills_and_live_ingestion_of_the_same_requests_insert_each_once(
    billing: Billing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "CHUNK_ROWS", 25)
    numbers = list(range(300))
    sources = [audit(tmp_path / "1.csv", numbers), audit(tmp_path / "2.csv", numbers[::-1])]

    def ingest() -> int:
        with billing.session(autocommit=True) as live:
            return sum(live.value(RECORD, f"c{n % 7}", f"r{n}", *MAY, 1 + n % 3) for n in numbers[::3])

    with ThreadPoolExecutor(3) as pool:
        batches = [pool.submit(insert_file, billing.url, source) for source in sources]
        recorded = pool.submit(ingest).result()
        done = [batch.result() for batch in batches]
    assert sum(batch.inserted for batch in done) + recorded == 300
    assert [(batch.conflict, batch.rejected, batch.adds_up) for batch in done] == [(0, 0, True)] * 2
    assert billing.value("select count(distinct request_id) from billing_usage_events") == billing.value(COUNT) == 300


def test_a_lost_connection_says_what_is_done_and_running_again_finishes(billing: Billing, tmp_path: Path) -> None:
    source = audit(tmp_path / "audit.csv", list(range(40)))

    def cut(_: int) -> None:
        billing.query(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where application_name = 'recon_pipeline' and datname = current_database()"
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "CHUNK_ROWS", 10)
        with pytest.raises(ReconError) as lost:
            insert_file(billing.url, source, cut)
    assert "Of 10 rows that were read before, 10 were inserted" in lost.value.changed
    assert billing.value("select outcome from recon.backfill_batch") == "failed"
    assert insert_file(billing.url, source).inserted == 30


def test_a_full_disk_fails_the_whole_and_is_no_fault_of_a_row(billing: Billing, tmp_path: Path) -> None:
    billing.query(
        "create function refuse() returns trigger language plpgsql as "
        "$$ begin raise disk_full using message = 'could not extend file'; end $$; "
        "create trigger full_disk before insert on billing_usage_events for each row execute function refuse()"
    )
    with pytest.raises(ReconError, match="is full: could not extend file") as full:
        insert_file(billing.url, audit(tmp_path / "audit.csv", [1, 2]))
    assert "Make room" in full.value.fix
    assert tuple(billing.query("select outcome, rows_read, rejected from recon.backfill_batch")[0]) == ("failed", 0, 0)


_HOSTILE = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        (
            *("", " ", "NaN", "1e3", "1.5", "-1", "0", "9" * 30, "1", "\0", "\ufeff", '"', "r\n", "24:00", "c", "r1"),
            *("2025-05-17T12:00:00Z", "2025-05-17T12:00:00", "9999-12-31T23:59:59-23:59"),
            *("0001-01-01T00:00:00+23:59", "\ud800"),
        )
    ),
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _HOSTILE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
_VALUES = {"customer": st.just("c"), "request": st.integers(1, 40).map("r{}".format), "units": st.integers(1, 9)}


def _rows(hostile: st.SearchStrategy[object]) -> st.SearchStrategy[list[dict[str, object]]]:
    row = {name: hostile | usual for name, usual in _VALUES.items()}
    at = st.just("2025-05-17T12:00:00Z") | hostile
    return st.lists(st.fixed_dictionaries(row | {"at": at, "left": hostile}), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hostile=_rows(_JSON), junk=st.lists(st.binary(max_size=20), max_size=3))
def test_every_line_of_a_hostile_ndjson_file_ends_in_one_way(
    fuzzed: Billing, tmp_path: Path, hostile: list[dict[str, object]], junk: list[bytes]
) -> None:
    path = tmp_path / "hostile.ndjson"
    lines = [json.dumps(one).encode() for one in hostile]
    path.write_bytes(b"\n".join(lines[:1] + junk + lines[1:]) + b"\n")
    _accounted_for(fuzzed, path, at_least=len(lines))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hostile=_rows(_HOSTILE), junk=st.lists(st.binary(max_size=20), max_size=3))
def test_every_record_of_a_hostile_csv_file_ends_in_one_way(
    fuzzed: Billing, tmp_path: Path, hostile: list[dict[str, object]], junk: list[bytes]
) -> None:
    path = tmp_path / "hostile.csv"
    quoted = [
        ",".join('"' + str(value).replace('"', '""') + '"' for value in one.values()).encode("utf-8", "surrogatepass")
        for one in hostile
    ]
    path.write_bytes(b"\n".join([f"{HEADER},left".encode(), *quoted, *junk]) + b"\n")
    _accounted_for(fuzzed, path, at_least=len(quoted))


def test_a_parquet_file_of_several_groups_is_read_to_its_end_in_chunks_with_its_row_numbers(
    billing: Billing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "CHUNK_ROWS", 4)
    path, numbers = tmp_path / "audit.parquet", list(range(1, 21))
    at = pa.array([datetime(2025, 5, 17, 12, tzinfo=UTC)] * 20, pa.timestamp("ms", "UTC"))
    columns = {"customer": ["c"] * 20, "request": [f"r{number}" for number in numbers], "units": numbers, "at": at}
    pq.write_table(pa.table(columns), path, row_group_size=7)
    reported: list[int] = []
    batch = insert_file(billing.url, str(path), reported.append)
    assert (batch.inserted, reported) == (20, [4, 7, 11, 14, 18, 20])
    lines = billing.query(
        "select quantity, metadata -> 'recon_backfill' ->> 'line' from billing_usage_events order by 1"
    )
    assert [(quantity, int(line)) for quantity, line in lines] == [(number, number) for number in numbers]


def _accounted_for(fuzzed: Billing, path: Path, *, at_least: int) -> None:
    before = fuzzed.value(COUNT)
    batch = insert_file(fuzzed.url, str(path))
    kept = fuzzed.query("select kind, reasons, raw_row from recon.rejected_event where batch_id = %s", batch.batch_id)
    assert batch.rows_read >= at_least
    assert batch.adds_up
    assert fuzzed.value(COUNT) - before == batch.inserted
    assert len(kept) == batch.conflict + batch.rejected
    assert all(one.reasons and json.loads(one.raw_row) is not None for one in kept)
    again = insert_file(fuzzed.url, str(path))
    assert (again.inserted, again.rows_read, again.rejected) == (0, batch.rows_read, batch.rejected)


def test_what_a_row_says_is_in_the_log_as_it_was_written(billing: Billing, tmp_path: Path) -> None:
    said = {"note": 'a\ttab, a\nline, a \\, a "quote", \\N, \\. and ü', "customer": "back\\slash\\n", "request": "\\."}
    source = tmp_path / "audit.ndjson"
    source.write_text(json.dumps({**said, "units": 2, "at": "2025-05-17T12:00:00.000001Z"}))
    assert insert_file(billing.url, str(source)).inserted == 1
    (event,) = billing.query(
        "select gateway_customer_id, request_id, quantity, event_timestamp = '2025-05-17 12:00:00.000001Z' as same, "
        "metadata ->> 'note' as note from billing_usage_events"
    )
    assert tuple(event) == (said["customer"], said["request"], 2, True, said["note"])
    assert insert_file(billing.url, str(source)).duplicate == 1
