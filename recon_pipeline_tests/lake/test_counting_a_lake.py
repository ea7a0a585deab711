"""Counters of months whose events are in a lake follow what an engine counted there, as they would follow the log."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from recon_pipeline.assets import lake_counting
from recon_pipeline.assets.lake_counting import Counted
from recon_pipeline.assets.reconciled_database import ReconciledDatabase
from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.lake.counting import OpenLake
from recon_pipeline.lake.settings import read_lake_settings
from recon_pipeline.store.lake import keeping
from recon_pipeline.store.postgres.database import DEFAULT_LOCK_TIMEOUT_MS, BillingDatabase
from recon_pipeline_tests.lake.lakes import JUNE, MAY, Event, write
from recon_pipeline_tests.reconciliation.billing import JUNE as IN_JUNE
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.support.assets import run_assets

KEPT = "select (select count(*) from recon.lake_count) + (select count(*) from recon.lake_counter)"


def count(*months: str) -> Sequence[Counted]:
    database = ReconciledDatabase()
    return lake_counting.count_months(
        database.open(),
        database.settings(),
        read_lake_settings(),
        [BillingMonth.parse(month) for month in months or ("2025-05",)],
        counted_by="ada",
    )


def count_all() -> Sequence[Counted]:
    database = ReconciledDatabase()
    settings = database.settings()
    return lake_counting.count_months(database.open(), settings, read_lake_settings(), [], counted_by="ada")


def fill(lake: Path) -> None:
    """In May `a` used 10 and `b` used 3, each event twice."""
    events = [Event("req-1", 4, "a"), Event("req-2", 6, "a"), Event("req-3", 3, "b")]
    write(lake / "month=2025-05", [*events, *events], files=2)


def test_a_closed_month_of_which_the_log_has_nothing_is_repaired_to_what_the_lake_says(
    job_billing: Billing, lake: Path
) -> None:
    fill(lake)
    job_billing.add_counter("a", 11)
    job_billing.add_counter("c", 5)

    (counted,) = count()

    assert counted.count is not None
    assert (counted.count.key_count, counted.count.event_count, counted.count.usage_count) == (2, 3, 13)
    assert (counted.count.dedupe_count, counted.count.invalid_count) == (3, 0)
    assert job_billing.counters() == {"a": 11, "c": 5}  # counting repairs nothing
    assert run_assets().record.outcome == "clean"
    assert job_billing.counters() == {"a": 10, "b": 3, "c": 0}
    assert job_billing.ledger() == [("a", "over", 11, 10), ("b", "missing", None, 3), ("c", "orphan", 5, 0)]
    assert run_assets().record.outcome == "clean"
    assert len(job_billing.ledger()) == 3


def test_a_counter_that_somebody_edits_later_is_repaired_by_the_next_run(job_billing: Billing, lake: Path) -> None:
    fill(lake)
    count()
    run_assets()
    job_billing.set_counter("a", 99)
    assert run_assets().record.outcome == "clean"
    assert job_billing.counter("a") == 10


def test_events_of_the_month_in_postgres_change_no_counter_while_the_lake_stands_for_it(
    job_billing: Billing, lake: Path
) -> None:
    fill(lake)
    count()
    run_assets()
    job_billing.record("a", 7)
    assert run_assets().record.outcome == "clean"
    assert job_billing.counter("a") == 10


def test_a_period_of_which_events_may_still_come_is_compared_and_only_proposed(
    job_billing: Billing, lake: Path
) -> None:
    long_period = (MAY, JUNE.replace(day=2))
    write(lake, [Event("req-1", 4, "a"), Event("req-2", 5, "b", period_end=long_period[1])])
    job_billing.add_counter("b", 1, period=long_period)

    count()
    ended = run_assets()

    assert ended.record.outcome == "not_clean"
    assert job_billing.counters() == {"a": 4}
    assert job_billing.counters(period=long_period) == {"b": 1}
    (found,) = job_billing.query(
        "select usage_count, visible_sum, outcome, error from recon.counter_drift where gateway_customer_id = 'b'"
    )
    assert tuple(found) == (
        1,
        5,
        "doubtful",
        "the lake may still get events of its period, which ends after RECON_LAKE_COMPLETE_UNTIL: only compared",
    )


def test_an_open_month_of_which_the_log_has_the_newest_events_follows_the_log(job_billing: Billing, lake: Path) -> None:
    write(lake, [Event("req-1", 4, "a", period_start=IN_JUNE[0], period_end=IN_JUNE[1])])
    job_billing.record("a", 7, period=IN_JUNE)
    (june,) = count("2025-06")
    assert (june.count, june.reason) == (
        None,
        "it is not below RECON_LAKE_COMPLETE_UNTIL, and the log in Postgres has events of it, which it follows",
    )
    run_assets(first="2025-06", last="2025-06")
    assert job_billing.counters(period=IN_JUNE) == {"a": 7}


def test_a_month_is_counted_again_only_if_its_files_changed_and_the_record_names_them(
    job_billing: Billing, lake: Path
) -> None:
    fill(lake)
    first, again = count()[0], count()[0]
    assert (first.is_new, again.is_new) == (True, False)
    assert first.count is not None
    assert again.count == first.count
    assert first.count.engine.startswith("DuckDB 1.5.")
    assert first.count.source["url"] == str(lake)
    files = first.count.source["files"]
    assert [Path(one["name"]).name for one in files] == ["part-0.parquet", "part-1.parquet"]
    assert all(one["size"] > 0 and one["version"] for one in files)

    write(lake / "month=2025-05" / "later", [Event("req-9", 1, "b")])
    assert count()[0].is_new
    run_assets()
    assert job_billing.counters() == {"a": 10, "b": 4}
    assert job_billing.value("select count(distinct count_id) from recon.lake_counter") == 1


def test_a_sum_past_bigint_is_reported_and_stops_one_key(job_billing: Billing, lake: Path) -> None:
    large = 9_000_000_000_000_000_000
    events = [Event("req-1", large, "a"), Event("req-2", large, "a"), Event("req-3", 3, "b")]
    write(lake, events)
    count()
    assert run_assets().record.outcome == "not_clean"
    assert job_billing.counters() == {"a": 0, "b": 3}
    ((error,),) = job_billing.query("select error from recon.counter_drift where gateway_customer_id = 'a'")
    assert error == "the event sum 18000000000000000000 is more than a bigint holds"


@pytest.mark.parametrize(("digits", "scale"), [(18, 10), (38, 10)])
def test_sums_of_decimals_are_kept_with_every_digit_and_no_zero_that_says_nothing(
    job_billing: Billing, lake: Path, digits: int, scale: int
) -> None:
    amounts = {"a": ("1.5", "2.5"), "b": ("0.0000000001",), "c": ("-0.0000000003", "0.0000000001"), "d": ("100",)}
    events = [Event(f"{name}-{one}", Decimal(one), name) for name, parts in amounts.items() for one in parts]
    write(lake, events, pa.decimal128(digits, scale))
    (counted,) = count()
    assert counted.count is not None
    assert (counted.count.usage_count, counted.count.key_count) == (Decimal("103.9999999999"), 4)
    kept = "select gateway_customer_id, usage_count::text, credit_units::text from recon.lake_counter order by 1"
    assert job_billing.query(kept) == [
        ("a", "4", "0"), ("b", "0.0000000001", "0"), ("c", "-0.0000000002", "-0.0000000003"), ("d", "100", "0")
    ]  # fmt: skip


def test_names_that_postgres_cannot_hold_are_invalid_and_all_others_are_counted(
    job_billing: Billing, lake: Path
) -> None:
    write(
        lake,
        [Event("req-1", 1, "a\0b"), Event("req-2", 2, 'ü,"\n'), Event("req-3", None, "c"), Event("req-4", 5, None)],
    )
    (counted,) = count()
    assert counted.count is not None
    assert (counted.count.event_count, counted.count.invalid_count) == (1, 3)
    run_assets()
    assert job_billing.counters() == {'ü,"\n': 2}


def test_a_count_that_is_withdrawn_lets_the_month_follow_the_log_again(job_billing: Billing, lake: Path) -> None:
    fill(lake)
    job_billing.record("a", 7)
    count()
    run_assets()
    database = ReconciledDatabase()
    (taken,) = lake_counting.withdraw(
        database.open(), database.settings(), BillingMonth.parse("2025-05"), withdrawn_by="ada", reason="TICKET-7"
    )
    assert taken.usage_count == 13
    run_assets()
    assert job_billing.counters() == {"a": 7, "b": 0}
    of_may = next(one for one in count_all() if one.month == BillingMonth.parse("2025-05"))
    assert (of_may.count, of_may.reason) == (None, "its count was withdrawn; --period counts it again")
    with pytest.raises(ReconError, match="2025-05 does not follow the lake"):
        lake_counting.withdraw(
            database.open(), database.settings(), BillingMonth.parse("2025-05"), withdrawn_by="ada", reason="TICKET-8"
        )


def test_a_file_that_changes_while_it_is_read_leaves_nothing_behind(
    job_billing: Billing, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake)
    keep = lake_counting.keeping.keep

    def keep_late(*arguments: object) -> object:
        kept = keep(*arguments)  # pyright: ignore[reportArgumentType]
        write(lake / "month=2025-05", [Event("req-1", 1, "a")])
        return kept

    monkeypatch.setattr(lake_counting.keeping, "keep", keep_late)
    with pytest.raises(ReconError) as refused:
        count()
    assert str(refused.value) == (
        f"{lake}/month=2025-05/part-0.parquet changed while it was read.\n"
        "Nothing was counted. No counter was changed.\n"
        "What to do: Wait until nobody writes the lake, then run this again."
    )
    assert job_billing.value(KEPT) == 0


def test_sums_are_kept_although_all_connections_were_lost_while_the_engine_counted(
    job_billing: Billing, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake)
    summed = OpenLake.sums

    @contextmanager
    def sums_after_a_restart(*arguments: Any) -> Iterator[Any]:
        with summed(*arguments) as found:
            job_billing.query(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )
            yield found

    monkeypatch.setattr(OpenLake, "sums", sums_after_a_restart)
    (counted,) = count()
    assert counted.count is not None
    assert counted.count.usage_count == 13


def test_a_count_waits_for_another_of_its_month_and_for_none_of_other_months(job_billing: Billing, lake: Path) -> None:
    fill(lake)
    write(lake / "month=2025-06", [Event("req-9", 8, "a", period_start=JUNE, period_end=JUNE + timedelta(days=30))])
    of_may = {"gateway_name": "stripe", "usage_type": "remote_commands", "partition": "2025-05"}
    with ThreadPoolExecutor(1) as another:
        with BillingDatabase(job_billing.url).transaction() as connection:
            connection.execute(keeping._LOCK, of_may)
            assert count("2025-06")[0].is_new
            waiting = another.submit(count, "2025-05")
            time.sleep(1.5 * DEFAULT_LOCK_TIMEOUT_MS / 1_000)
            assert not waiting.done()
        assert waiting.result()[0].is_new


def test_a_file_that_is_no_parquet_or_is_cut_is_named_and_nothing_is_counted(job_billing: Billing, lake: Path) -> None:
    fill(lake)
    cut = lake / "month=2025-05" / "part-1.parquet"
    cut.write_bytes(cut.read_bytes()[:-40])
    with pytest.raises(ReconError, match=r"cannot read the lake: .*part-1\.parquet"):
        count()
    assert job_billing.value(KEPT) == 0


def test_files_beside_the_folders_whose_names_give_columns_are_refused_instead_of_being_left_out(
    job_billing: Billing, lake: Path
) -> None:
    fill(lake)
    write(lake / "late", [Event("req-9", 1, "a")])
    with pytest.raises(ReconError) as refused:
        count()
    assert str(refused.value) == (
        "The names of folders give different columns for different files of the lake: month; none.\n"
        "Nothing was counted. No counter was changed.\n"
        "What to do: Name one of its folders in RECON_LAKE, or leave files out by skip: in the mapping."
    )


def test_columns_are_read_by_the_mapping_of_a_backfill(
    job_billing: Billing, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(lake / "raw", [])
    (lake / "raw" / "part-0.parquet").unlink()
    import pyarrow.parquet as pq

    millis = [1_746_057_600_000 + place for place in range(3)]
    rows = {
        "account": pa.array([7, 7, 8]),
        "uid": ["x", "x", "y"],
        "units": pa.array([2, 2, None], pa.int32()),
        "at": pa.array(millis),
        "begins": pa.array([MAY.replace(tzinfo=None)] * 3, pa.timestamp("us")),
        "ends": pa.array([JUNE.date()] * 3),
    }
    (lake / "meter=remote_commands").mkdir()
    pq.write_table(pa.table(rows), lake / "meter=remote_commands" / "rows.parquet")
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(
        "gateway_name: {value: stripe}\ngateway_customer_id: account\nusage_type: meter\nrequest_id: uid\n"
        "quantity: {column: units, default: 5}\nevent_timestamp: {column: at, format: unix_milliseconds}\n"
        "period_start: {column: begins, zone: UTC}\nperiod_end: {column: ends, zone: UTC}\n"
    )
    monkeypatch.setenv("RECON_LAKE_MAPPING", str(mapping))
    count()
    run_assets()
    assert job_billing.counters() == {"7": 2, "8": 5}

    mapping.write_text(mapping.read_text().replace("request_id: uid", "request_id: nonsense"))
    with pytest.raises(ReconError) as refused:
        count()
    assert str(refused.value) == (
        "The lake has no column nonsense; it has account, at, begins, ends, meter, uid, units.\n"
        "Nothing was counted. No counter was changed.\n"
        "What to do: Correct the file that RECON_LAKE_MAPPING names."
    )
