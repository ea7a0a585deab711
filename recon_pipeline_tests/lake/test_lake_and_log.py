"""A lake and a log of the same events add up to the same, however hostile the events are."""

import random
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
            chance.choice((MAY - microsecond, MAY, JUNE - microsecond, JUNE)),
            MAY + number * microsecond,
            chance.choice((MAY, MAY + microsecond)),
            chance.choice((JUNE, JUNE, MAY, None)),
        )
        for number in range(200)
    ]


@pytest.mark.parametrize("seed", [1, 2])
def test_both_count_every_key_alike(job_billing: Billing, tmp_path: Path, seed: int) -> None:
    events = hostile(seed)
    chance = random.Random(seed)  # noqa: S311
    job_billing.query(ADMITS_ANYTHING)
    names = list(vars(events[0]))
    with job_billing.connection.cursor() as cursor:
        copy = f"copy billing_usage_events ({', '.join(names)}) from stdin"
        with job_billing.connection.transaction(), cursor.copy(copy.encode()) as rows:
            for event in events:
                rows.write_row(list(vars(event).values()))
    compare_assets()
    log = {
        (row.gateway_customer_id, row.period_start, row.period_end): {
            "event_count": row.event_count,
            "usage": row.usage_count,
            "credit": row.credit_units,
            "invalid_count": row.invalid_count,
            "dedupe_count": row.dedupe_count,
            "negative_count": row.negative_count,
            "outside_period_count": row.outside_period_count,
        }
        for row in job_billing.query("select * from recon.usage_aggregate")
    }
    lake = counted(write(tmp_path, chance.sample(events, len(events)), pa.string(), files=3))
    assert log == model(events)
    assert lake == log
    total: Any = sum((one["usage"] for one in log.values()), Decimal(0))
    assert total > 2**53
