"""The partitions of every asset: billing months in UTC, from `RECON_START_PERIOD` to the current one.

Read when definitions load, because Dagster fixes partitions then: nothing else reads the environment so early.
"""

import dagster as dg

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.settings import known_months, read_start_period
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.records.retention import months_in_the_log, read_retention

BILLING_MONTHS = dg.TimeWindowPartitionsDefinition(
    start=read_start_period().key,
    fmt="%Y-%m",
    cron_schedule="0 0 1 * *",
    timezone="UTC",
    end_offset=1,  # so that the current month exists while it is being billed
)

RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
PARTITION_TAG = "dagster/partition"


def months_of_run(tags: dict[str, str]) -> tuple[BillingMonth, BillingMonth]:
    """The first and last month that a run is about, both included; all known months if its tags name none."""
    first = tags.get(RANGE_START_TAG, tags.get(PARTITION_TAG))
    last = tags.get(RANGE_END_TAG, tags.get(PARTITION_TAG))
    if first is None or last is None:
        return known_months()
    return BillingMonth.parse(first), BillingMonth.parse(last)


def months_of_run_in_the_log(database: BillingDatabase, tags: dict[str, str]) -> tuple[BillingMonth, BillingMonth]:
    """The same, without the months that are declared to be no longer in the log (recon retention).

    Raises:
        ConfigurationError: All of them are.
        ReconError: The database cannot be used.
    """
    with database.transaction() as connection:
        return months_in_the_log(read_retention(connection), *months_of_run(tags))


def range_tags(first: BillingMonth, last: BillingMonth) -> dict[str, str]:
    """The tags that make one run of a contiguous range of months, both included."""
    return {RANGE_START_TAG: first.key, RANGE_END_TAG: last.key}
