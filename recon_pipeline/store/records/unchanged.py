"""Whether anything changed since a run found every counter matching; if nothing did, its result is still true.

Invariant: this relies on what a tick itself relies on: the stored sums, later events, notes of deleted or updated
events, the open keys, and the version of every counter's row. It uses no statistics.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import cast

from sqlalchemy import Connection

from recon_pipeline.store.counters.usage_snapshot import UsageSnapshot
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.postgres.statements import labelled
from recon_pipeline.store.records.schedule import months_to_reconcile
from recon_pipeline.store.sums import horizons
from recon_pipeline.store.sums.modes import Mode
from recon_pipeline.store.sums.run import Reconciliation

RUN_AT_LEAST_EVERY_MINUTES = 55
"""A result is confirmed no longer than this, so that with a tick every 5 minutes there is a run in each hour."""

# The latest run over exactly these usages and months, and all customers, if it was clean and began lately.
# Binds: at_most_minutes integer, first_partition text, last_partition text, scope text[]
_LATEST_CLEAN_RUN = labelled(
    "latest_clean_run",
    """
    select run_id, started_at
    from (
        select run_id, started_at, outcome
        from recon.reconciliation_run
        where started_at > clock_timestamp() - make_interval(mins => :at_most_minutes)
            and confirms_run_id is null
            and customers is null
            and scope = :scope
            and first_partition = :first_partition
            and last_partition = :last_partition
        order by started_at desc
        limit 1
    ) as latest
    where outcome = 'clean'
    """,
)
# Records that a tick found nothing changed since a run; its figures are those of a run that finds no drift.
# Binds: confirmed_run_id text, counters_scanned bigint, run_id text
_CONFIRM_RUN = labelled(
    "confirm_run",
    """
    insert into recon.reconciliation_run (
        run_id, confirms_run_id, started_at, finished_at, outcome, mode, scope, first_partition, last_partition,
        horizon, events_scanned, counters_scanned, dedupe_count, drift_count, drift_by_kind, rows_repaired,
        deferred_count, held_count, doubtful_count, reconcile_failures, over_quota_transitions, under_quota_transitions,
        mismatch_count
    )
    select
        :run_id, run_id, now(), clock_timestamp(), outcome, mode, scope, first_partition, last_partition,
        pg_snapshot_xmin(pg_current_snapshot()), events_scanned, :counters_scanned, dedupe_count, 0,
        '{"missing": 0, "under": 0, "over": 0, "orphan": 0}', 0, 0, 0, 0, 0, 0, 0, 0
    from recon.reconciliation_run
    where run_id = :confirmed_run_id
    """,
)


@dataclass(frozen=True)
class Confirmed:
    """A clean run whose result is still true.

    Attributes:
        run_id: Of the run.
        started_at: When it began.
    """

    run_id: str
    started_at: datetime


def confirm(connection: Connection, run: Reconciliation, tables: BillingTables, *, mode: Mode) -> Confirmed | None:
    """Record that a run's result is still true, under the id of this check; None if something may have changed.

    Args:
        connection: In a REPEATABLE READ transaction that has locked the tables, which the caller commits.
        run: What the check covers, all customers.
        tables: How the tables are shaped.
        mode: Only the incremental mode can know it.
    """
    if mode is Mode.FULL:
        return None
    extent = run.extent
    latest = connection.execute(
        _LATEST_CLEAN_RUN,
        {
            "at_most_minutes": RUN_AT_LEAST_EVERY_MINUTES,
            "scope": [str(usage) for usage in extent.scope],
            "first_partition": extent.first.key,
            "last_partition": extent.last.key,
        },
    ).one_or_none()
    if latest is None or months_to_reconcile(connection, extent, tables, recent_days=None, mode=mode):
        return None
    oldest = horizons.oldest_transaction(connection)
    if oldest is not None and (oldest.seconds or 0) > horizons.HELD_BACK_SECONDS:
        return None
    position = horizons.position(connection, tables, settle_seconds=run.settle_seconds)
    counters = 0
    for usage in extent.scope:
        found = UsageSnapshot(connection, run, tables, usage, position).changed_since_verified(mode)
        if found is None or len(found[0]):
            return None
        counters += found[1]
    connection.execute(
        _CONFIRM_RUN, {"run_id": run.run_id, "confirmed_run_id": latest.run_id, "counters_scanned": counters}
    )
    return Confirmed(latest.run_id, cast("datetime", latest.started_at))
