"""A lake and a log of the same events add up to the same, however hostile the events are."""

import random
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from recon_pipeline_tests.lake.lakes import JUNE, MAY, Event, model, write
from recon_pipeline_tests.lake.test_event_sums import counted
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.support.assets import compare_assets

ADMITS_ANYTHING = """
    alter table billing_usage_events
        drop constraint billing_usage_events_gateway_name_request_id_key,
        drop constraint billing_usage_events_quantity_check,
        drop constraint billing_usage_events_check,
        alter quantity drop not null, alter quantity type numeric,
        alter gateway_customer_id drop not null, alter period_end drop not null
"""
QUANTITIES = (
    "1",
    "0.000001",
    f"{2**53 + 1}",
    "99999999999999999999.999999",
    "-3",
    "-0.5",
    "9" * 38,
    f"-0.{'9' * 38}",
    "0",
    "NaN",
    "Infinity",
    None,
)
CUSTOMERS = ("cus_a", "客户", "é" * 500, "é" * 501, 'a"b,c\n', None)


def hostile(seed: int) -> list[Event]:
    """Duplicates, invalid rows, long and short quantities, times a microsecond apart."""
    chance = random.Random(seed)  # noqa: S311 - a seed is wanted
    microsecond = timedelta(microseconds=1)
    return [
        Event(
            f"req-{chance.randrange(60)}",
            chance.choice(QUANTITIES),
            chance.choice(CUSTOMERS),
            chance.choice((MAY - microsecond, MAY, JUNE - microsecond, JUNE, None)),
            MAY + number * microsecond,
            chance.choice((MAY, MAY + microsecond)),
            chance.choice((JUNE, JUNE, MAY, None)),
        )
        for number in range(200)
    ]


def log_sums(billing: Billing, events: Sequence[Event]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The event sums by key, by Postgres, of a log of these events."""
    billing.query(ADMITS_ANYTHING)
    copy = f"copy billing_usage_events ({', '.join(vars(events[0]))}) from stdin"
    with billing.connection.cursor() as cursor, billing.connection.transaction(), cursor.copy(copy.encode()) as rows:
        for event in events:
            rows.write_row(list(vars(event).values()))
    compare_assets()
    return {
        (row.gateway_customer_id, row.period_start, row.period_end): {
            "event_count": row.event_count,
            "usage": row.usage_count,
            "credit": row.credit_units,
            "invalid_count": row.invalid_count,
            "dedupe_count": row.dedupe_count,
            "negative_count": row.negative_count,
            "outside_period_count": row.outside_period_count,
        }
        for row in billing.query("select * from recon.usage_aggregate")
    }


def written(folder: Path, events: Sequence[Event]) -> Path:
    """A lake of these events, in another order."""
    return write(folder, random.Random(1).sample(events, len(events)), pa.string(), files=3)  # noqa: S311


@pytest.mark.parametrize("seed", [1, 2])
def test_both_count_every_key_alike(job_billing: Billing, tmp_path: Path, seed: int) -> None:
    events = hostile(seed)
    log = log_sums(job_billing, events)
    assert log == model(events)
    assert counted(written(tmp_path, events)) == log
    total: Any = sum((one["usage"] for one in log.values()), Decimal(0))
    assert total > 2**53
