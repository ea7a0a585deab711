"""Event sums of a lake: exact, each identity counted once, whichever files and types the events come in."""

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.event_identity import EventIdentity
from recon_pipeline.lake.duckdb_engine import DuckDB, duckdb_engine
from recon_pipeline.sources.finding import find_files
from recon_pipeline_tests.lake.lakes import JUNE, MAY, Event, model, sums_by, table, write

NINES = "9" * 38
MICROSECOND = timedelta(microseconds=1)

OF_TYPES: list[tuple[pa.DataType, list[Any]]] = [
    (pa.int64(), [1, 2**53 + 1, 2**63 - 1, 2**63 - 1, None, -5]),
    (pa.decimal128(12, 3), [Decimal("1.001"), Decimal("-0.5"), Decimal("999999999.999"), None]),
    (pa.decimal128(38, 0), [Decimal(NINES), Decimal(NINES), Decimal(f"-{NINES}"), Decimal(2**53 + 1)]),
    (pa.decimal128(38, 38), [Decimal(f"0.{NINES}"), Decimal(f"0.{NINES}"), Decimal("-0.1")]),
    (pa.string(), ["NaN", "-Infinity", "0.5", f"{NINES}.5", "-7", None]),
]


def counted(
    lake: Path,
    identity: EventIdentity | None = EventIdentity(),  # noqa: B008
    *,
    memory_mb: int = 512,
) -> dict[tuple[Any, ...], dict[str, Any]]:
    with duckdb_engine(memory_mb) as engine:
        return sums_by(engine, lake, identity)


@pytest.mark.parametrize(("quantity", "values"), OF_TYPES)
def test_quantities_are_added_to_the_last_digit(tmp_path: Path, quantity: pa.DataType, values: list[Any]) -> None:
    events = [Event(f"req-{place}", value) for place, value in enumerate(values)]
    assert counted(write(tmp_path, events, quantity, files=2)) == model(events)


def test_of_the_events_of_one_identity_the_first_to_arrive_counts_whichever_file_it_is_in(tmp_path: Path) -> None:
    late, early = MAY + 2 * MICROSECOND, MAY + MICROSECOND
    events = [
        Event("req-1", 5, created_at=late),
        Event("req-1", 7, created_at=early),
        Event("req-1", 9, "cus_b", created_at=late),
        Event("req-2", 1, created_at=early),
        Event("req-2", 2, created_at=None),
        Event("req-3", None, created_at=early),
        Event("req-3", 4, created_at=late),
        Event(None, 1),
        Event(None, 1),
    ]
    for number, order in enumerate((events, events[::-1])):
        assert counted(write(tmp_path / str(number), order, files=3)) == model(events)
    assert counted(tmp_path / "0")["cus_a", MAY, JUNE]["usage"] == 7 + 2 + 4 + 1 + 1


@pytest.mark.parametrize("column", ["ingest_xid", "id"])
def test_whole_numbers_that_are_text_decide_as_numbers_which_event_came_first(tmp_path: Path, column: str) -> None:
    rows = table([Event("req-1", 5), Event("req-1", 7), Event("req-1", 9)])
    pq.write_table(rows.append_column(column, pa.array(["1000", "999", "no number"])), tmp_path / "part-0.parquet")
    assert counted(tmp_path)["cus_a", MAY, JUNE]["usage"] == 7


def test_what_names_no_counter_is_counted_as_invalid_and_what_lies_outside_its_period_is_summed(tmp_path: Path) -> None:
    events = [
        Event("req-1", 1, "é" * 500),
        Event("req-2", 1, "é" * 500 + "x"),
        Event("req-3", 1, None),
        Event("req-4", 1, period_end=None),
        Event("req-5", 1, period_end=MAY),
        Event("req-6", 1, event_timestamp=JUNE),
        Event("req-7", 1, event_timestamp=JUNE - MICROSECOND),
        Event("req-8", 1, event_timestamp=MAY - MICROSECOND),
        Event("req-9", 1, "客户-9", MAY),
    ]
    assert counted(write(tmp_path, events)) == model(events)


def test_an_identity_may_have_more_columns_and_a_table_without_twins_is_not_searched_for_them(tmp_path: Path) -> None:
    lake = write(tmp_path, [Event("req-1", 1), Event("req-1", 1, "cus_b"), Event("req-1", 1, "cus_b")])
    by_customer = counted(lake, EventIdentity(("gateway_name", "request_id", "gateway_customer_id")))
    assert {key[0]: one["dedupe_count"] for key, one in by_customer.items()} == {"cus_a": 0, "cus_b": 1}
    assert {key[0]: one["usage"] for key, one in counted(lake, None).items()} == {"cus_a": 1, "cus_b": 2}


def test_identities_that_share_a_hash_are_still_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DuckDB, "hashed", lambda _engine, text: text.length() % 1)
    events = [
        Event("req-1", 5),
        Event("req-2", 7),
        Event("req-2", 7),
        Event("req-3", -1),
        Event(None, 1),
        Event(None, 1),
    ]
    assert counted(write(tmp_path, events)) == model(events)


def write_many(lake: Path, count: int) -> None:
    """Events of which each adds 1, of a hundred keys; no two have one identity."""
    duckdb.sql(
        f"""
        copy (
            select
                'stripe' as gateway_name, 'cus_' || i % 100 as gateway_customer_id, 'remote_commands' as usage_type,
                'req-' || i as request_id, 1::bigint as quantity,
                timestamptz '{MAY}' as event_timestamp, timestamptz '{MAY}' as created_at,
                timestamptz '{MAY}' as period_start, timestamptz '{JUNE}' as period_end
            from range({count}) as made_up (i)
        ) to '{lake}/part-0.parquet' (format parquet)
        """
    )


def test_events_that_have_no_twin_are_never_all_held_at_once(tmp_path: Path) -> None:
    count = 1_000_000
    write_many(tmp_path, count)
    with duckdb_engine(80) as engine:
        engine._backend.raw_sql("set max_temp_directory_size = '0B'")
        sums = sums_by(engine, tmp_path)
    assert sum(one["usage"] for one in sums.values()) == count


def test_twins_are_found_among_identities_of_which_memory_holds_a_tenth(tmp_path: Path) -> None:
    count = 8_000_000
    write_many(tmp_path, count)
    write(tmp_path / "again", [Event(f"req-{number}", 1) for number in range(0, count, count // 5)])
    with duckdb_engine(24) as engine:
        engine._backend.raw_sql("set threads = 2")
        sums = sums_by(engine, tmp_path)
    assert (sum(one["usage"] for one in sums.values()), sum(one["dedupe_count"] for one in sums.values())) == (count, 5)


def test_floating_point_quantities_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReconError) as refused:
        counted(write(tmp_path, [Event("req-1", 0.1)], pa.float64()))
    assert str(refused.value) == (
        "The quantities are of the type float64, which does not keep every digit.\n"
        "Nothing was counted. No counter was changed.\n"
        "What to do: Write them as whole numbers (int64) or as decimals, for example with a cast to decimal(38, 6)."
    )


def test_an_engine_without_enough_memory_says_which_limit_to_raise(tmp_path: Path) -> None:
    lake = write(tmp_path, [Event(f"req-{number}", 1, f"cus_{number}") for number in range(50_000)])
    with pytest.raises(ReconError) as refused:
        counted(lake, memory_mb=2)
    assert refused.value.what.startswith("DuckDB 1.5.")
    assert (
        " needs more than its 2 MB of memory, or more than the folder for temporary files holds: " in refused.value.what
    )
    assert (refused.value.changed, refused.value.fix) == (
        "Nothing was counted. No counter was changed.",
        "Set RECON_LAKE_MEMORY_MB higher, or free space in the folder that TMPDIR names.",
    )


def test_a_name_of_a_file_is_never_taken_for_a_pattern_or_for_sql(tmp_path: Path) -> None:
    odd = write(tmp_path / "it's [a] *", [Event("req-1", 1)])
    (odd / "part-0.parquet").rename(odd / "p[0]?'.parquet")
    write(tmp_path / "it's a x", [Event("req-2", 5)])
    with duckdb_engine() as engine:
        rows = engine.read_parquet(find_files(str(odd)))
        with engine.run(rows) as batches:
            assert [row["request_id"] for row in batches.read_all().to_pylist()] == ["req-1"]
