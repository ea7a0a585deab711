"""What runs over every customer found drifted, over time: for the chart of the overview."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from recon_pipeline.store.postgres.statements import labelled

BUCKET = timedelta(hours=3)
"""A day has a whole number of them, so that each begins at the same hours."""

# What runs found, by spans of some hours, those with a run.
# Index: recon.reconciliation_run by start.
# Binds: bucket_hours integer, since timestamptz
_DRIFT_HISTORY = labelled(
    "drift_history",
    """
    select
        date_bin(make_interval(hours => :bucket_hours), started_at, timestamptz '2000-01-01 00:00:00+00') as began_at,
        count(*) as runs,
        count(*) filter (where outcome in ('failed', 'blocked')) as stopped,
        coalesce(max(drift_count), 0) as drift_count,
        coalesce(max(mismatch_count), 0) as mismatch_count
    from recon.reconciliation_run
    where started_at >= :since
        and customers is null
        and outcome <> 'running'
    group by began_at
    order by began_at
    """,
)


@dataclass(frozen=True)
class Bucket:
    """The runs that began within one span of `BUCKET`.

    Attributes:
        began_at: When the span began.
        runs: How many ended.
        stopped: How many of them failed or were blocked.
        drift_count: The most drifted keys that one of them found.
        mismatch_count: The most keys that still differed when one of them ended.
    """

    began_at: datetime
    runs: int
    stopped: int
    drift_count: int
    mismatch_count: int


def bucket_start(moment: datetime) -> datetime:
    """When the span that holds a moment began."""
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + (moment - midnight) // BUCKET * BUCKET


def drift_history(connection: Connection, *, since: datetime) -> tuple[Bucket, ...]:
    """The spans with a run since the beginning of one, oldest first."""
    parameters = {"bucket_hours": BUCKET // timedelta(hours=1), "since": since}
    return tuple(Bucket(**row) for row in connection.execute(_DRIFT_HISTORY, parameters).mappings())
