"""Files that different programs wrote: every digit and every time is kept, or the count is refused."""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline_tests.commands.conftest import recon
from recon_pipeline_tests.lake.lakes import JUNE, MAY, Event, table, write
from recon_pipeline_tests.lake.test_counting_a_lake import KEPT, count
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.support.assets import run_assets

NOTHING = "Nothing was counted. No counter was changed."
ALIKE = (
    "Write the column alike in all files, with the program that writes the lake; or leave files out by skip: in the "
    "mapping."
)
NAIVE = pa.timestamp("us")
MAPPED = """
gateway_name: gateway_name
gateway_customer_id: gateway_customer_id
usage_type: usage_type
request_id: request_id
quantity: quantity
event_timestamp: event_timestamp
period_start: {column: period_start, zone: UTC}
period_end: period_end
"""


def write_types(lake: Path, types: Sequence[pa.DataType], amount: str = "1") -> None:
    """A file with one event for each type of quantities."""
    for number, type_ in enumerate(types):
        amounts = [int(amount) if pa.types.is_integer(type_) else Decimal(amount)]
        write(lake / str(number), [Event(f"req-{number}", amounts[0])], type_)


def without_zone(events: pa.Table, column: str) -> pa.Table:
    place = events.column_names.index(column)
    return events.set_column(place, column, events.column(column).cast(NAIVE))


@pytest.mark.parametrize(
    ("types", "shown"),
    [
        ([pa.decimal128(38, 0), pa.decimal128(38, 10)], "DECIMAL(38,0), DECIMAL(38,10)"),
        ([pa.decimal128(38, 6), pa.decimal128(38, 9)], "DECIMAL(38,6), DECIMAL(38,9)"),
        ([pa.int64(), pa.decimal128(38, 20)], "BIGINT, DECIMAL(38,20)"),
    ],
)
def test_decimals_that_no_type_holds_together_are_refused_where_duckdb_would_round_them(
    job_billing: Billing, lake: Path, types: list[pa.DataType], shown: str
) -> None:
    write_types(lake, types)
    with pytest.raises(ConfigurationError) as refused:
        count()
    assert str(refused.value) == (
        f"quantity is read from the column quantity of the lake, which is {shown} in different files: no type holds "
        f"the digits of all of them.\n{NOTHING}\nWhat to do: {ALIKE}"
    )
    assert job_billing.value(KEPT) == 0


def test_numbers_of_different_types_that_one_type_holds_are_added_to_the_last_digit(
    job_billing: Billing, lake: Path
) -> None:
    write_types(lake, [pa.int8(), pa.int64(), pa.uint64(), pa.decimal128(20, 18), pa.decimal128(10, 0)])
    nested = table([Event("req-9", 2)]).append_column("other", pa.array([{"quantity": Decimal("0.5")}]))
    pq.write_table(nested, lake / "nested.parquet")
    (counted,) = count()
    assert counted.count is not None
    assert str(counted.count.usage_count) == "7"


def test_a_time_without_a_zone_beside_times_with_one_is_not_taken_for_one_of_utc(
    job_billing: Billing, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(lake, [Event("req-1", 1)])
    pq.write_table(without_zone(table([Event("req-2", 1)]), "period_start"), lake / "other.parquet")
    with pytest.raises(ConfigurationError) as refused:
        count()
    assert refused.value.what == (
        "period_start is read from the column period_start of the lake, which is TIMESTAMP, TIMESTAMP WITH TIME ZONE "
        "in different files: some have no zone, and the mapping does not say zone: UTC."
    )
    (tmp_path / "mapping.yaml").write_text(MAPPED)
    monkeypatch.setenv("RECON_LAKE_MAPPING", str(tmp_path / "mapping.yaml"))
    (counted,) = count()
    assert counted.count is not None
    assert counted.count.usage_count == 2


@pytest.mark.parametrize("digits", [28, 29, 38])
def test_a_month_adds_up_to_the_last_digit_and_has_no_zero_that_says_nothing(
    job_billing: Billing, lake: Path, digits: int
) -> None:
    nines = "9" * digits
    events = [Event("req-1", Decimal(nines), "a"), Event("req-2", Decimal("2"), "b")]
    write(lake, events, pa.decimal128(38, 0))
    (counted,) = count()
    assert counted.count is not None
    added = "1" + "0" * (digits - 1) + "1"
    assert str(counted.count.usage_count) == added
    assert job_billing.value("select usage_count::text from recon.lake_count") == added


def test_periods_without_an_end_and_with_one_that_python_cannot_hold_are_compared(
    job_billing: Billing, lake: Path
) -> None:
    write(lake, [Event("req-1", 1, "a")])
    for number, end in enumerate(("infinity", "10000-01-01 00:00:00+00", "294247-01-10 04:00:54.775806+00")):
        duckdb.sql(
            f"copy (select * replace (timestamptz '{end}' as period_end, 'late-{number}' as request_id, "
            f"'{number}' as gateway_customer_id) from '{lake}/part-0.parquet') to '{lake}/late-{number}.parquet'"
        )
    count()
    kept = "select gateway_customer_id, (period_end at time zone 'UTC')::text from recon.lake_counter order by 1"
    assert job_billing.query(kept) == [
        ("0", "infinity"), ("1", "10000-01-01 00:00:00"), ("2", "294247-01-10 04:00:54.775806"),
        ("a", "2025-06-01 00:00:00"),
    ]  # fmt: skip
    run_assets()
    assert job_billing.counters() == {"a": 1}


def test_a_millionth_of_a_second_before_the_month_is_not_in_it(job_billing: Billing, lake: Path) -> None:
    write(lake, [Event("req-1", 1, period_start=MAY - timedelta(microseconds=1)), Event("req-2", 2, period_end=JUNE)])
    (counted,) = count()
    assert counted.count is not None
    assert counted.count.usage_count == 2


def test_events_that_no_month_has_are_told_and_not_lost_without_a_word(job_billing: Billing, lake: Path) -> None:
    events = table([Event(f"req-{number}", 1) for number in range(4)])
    for place, name in enumerate(("gateway_name", "usage_type", "period_start")):
        column = events.column(name).to_pylist()
        column[place] = None
        events = events.set_column(
            events.column_names.index(name), name, pa.array(column, events.schema.field(name).type)
        )
    pq.write_table(events, lake / "part-0.parquet")
    said = recon("count-lake", "--period", "2025-05")
    assert said.out.splitlines()[0].startswith("Counted 2025-05 of stripe:remote_commands: 1 keys, 1 events, 1 units; ")
    assert said.out.splitlines()[1] == (
        "3 rows of the lake are in no month of any usage, since gateway_name, usage_type or period_start is null."
    )
    (again,) = recon("count-lake", "--period", "2025-05", "--json").json["months"]
    assert (again["is_new"], again["in_no_month"]) == (False, None)
