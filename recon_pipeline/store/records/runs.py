"""The record of runs in `recon.reconciliation_run`: what each covered, who approved its repairs, and how it ended."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.store.postgres.statements import labelled, statement
from recon_pipeline.store.sums.modes import Mode
from recon_pipeline.store.sums.run import Reconciliation

# The record of one run, or the latest runs, newest first.
# Index: the primary key of recon.reconciliation_run, or its index by start.
# Binds: rows bigint, run_id text
_READ_RUNS = labelled(
    "read_runs",
    """
    select *,
        extract(epoch from coalesce(finished_at, clock_timestamp()) - started_at)::float8 * 1000 as duration_ms,
        -- Its latest step began long ago and has no session any more. Of another role's sessions no start is shown.
        outcome = 'running' and step_started_at < clock_timestamp() - interval '2 minutes' and not exists (
            select from pg_stat_activity where pid = session_pid and coalesce(backend_start = session_start, true)
        ) as is_abandoned
    from recon.reconciliation_run
    where cast(:run_id as text) is null or run_id = :run_id
    order by started_at desc
    limit :rows
    """,
)
# Those of some runs whose record, or the record of whose batch, is open.
# Index: the primary key of recon.reconciliation_run; recon.backfill_batch is small.
# Binds: run_ids text[]
_LEFT_OPEN = labelled(
    "runs_left_open",
    """
    select run_id from recon.reconciliation_run where run_id = any(:run_ids) and outcome = 'running'
    union
    select run_id from recon.backfill_batch where run_id = any(:run_ids) and outcome = 'running'
    """,
)
# Whether a run has a row in the ledger.
# Binds: run_id text
_HAS_REPAIRED = labelled("has_repaired", "select exists (select from recon.counter_repair where run_id = :run_id)")
# When the first run began.
# Index: recon.reconciliation_run by start.
_FIRST_STARTED_AT = labelled("first_started_at", "select min(started_at) from recon.reconciliation_run")
# Deletes the drift of old comparisons.
# Invariant: runs and the ledger of repairs stay.
# Binds: days integer
_DELETE_OLD_DRIFT = labelled(
    "delete_old_drift",
    """
    delete from recon.counter_drift
    where run_id in (
        select run_id
        from recon.reconciliation_run
        where started_at < clock_timestamp() - make_interval(days => :days)
    )
    """,
)

_ABANDONED = "its process ended before it closed the record: it was killed, or its server was"


@dataclass(frozen=True)
class RunStart:
    """What opening a run's record returns.

    Attributes:
        horizon: The transaction id below which every transaction had ended.
        previous_started_at: When the last run that finished had started, or None for the first.
    """

    horizon: str
    previous_started_at: datetime | None


@dataclass(frozen=True)
class RunRecord:
    """One run; figures are None where the run did not get so far.

    Attributes:
        customers: The only ones that the run covered, or None for all.
        mode: `incremental` or `full`.
        mode_reason: Why it is full, or None.
        rebuilt_because: Why the aggregates were rebuilt, or None.
        aggregates_differing: Aggregates that an audit or a comparison found to differ from the log, or None if no audit
            was made and the comparison found none.
        events_left_the_log: By billing month, the keys that were left alone because events of theirs left the log, with
            how many events and units; None where there were none.
        paused_reason: Who paused repairs and why, if that kept the run from repairing all that it found, or None.
        outcome: `running`, `clean`, `not_clean`, `compared` (nothing was to be repaired), `paused`, `blocked`,
            `put_off` (another session had a table locked) or `failed`.
        confirms_run_id: Of a tick that started no run: the run whose result it confirms. None of a run.
        duration_ms: Until its end, or until now.
    """

    run_id: str
    started_at: datetime
    finished_at: datetime | None
    outcome: str
    mode: str
    mode_reason: str | None
    rebuilt_because: str | None
    aggregates_differing: int | None
    first_partition: str
    last_partition: str
    customers: list[str] | None
    events_scanned: int | None
    counters_scanned: int | None
    drift_by_kind: dict[str, int] | None
    drift_count: int | None
    rows_repaired: int | None
    deferred_count: int | None
    held_count: int | None
    doubtful_count: int | None
    events_left_the_log: list[dict[str, Any]] | None
    dedupe_count: int | None
    reconcile_failures: int | None
    over_quota_transitions: int | None
    under_quota_transitions: int | None
    mismatch_count: int | None
    approved_by: str | None
    approved_reason: str | None
    approved_run_id: str | None
    paused_reason: str | None
    error: str | None
    confirms_run_id: str | None
    duration_ms: float

    @property
    def is_preview(self) -> bool:
        """Whether it repaired nothing, since it was blocked or a dry run."""
        return self.outcome in ("blocked", "compared")


def start(connection: Connection, run: Reconciliation, *, mode: str, reason: str | None = None) -> RunStart:
    """Open the record of a run; a retried step finds it open. The mode is that of its first step."""
    row = connection.execute(
        statement("start_run"),
        {
            "run_id": run.run_id,
            "mode": mode,
            "mode_reason": reason,
            "scope": [str(usage) for usage in run.extent.scope],
            "first_partition": run.extent.first.key,
            "last_partition": run.extent.last.key,
            "customers": list(run.extent.customers) if run.extent.customers is not None else None,
        },
    ).one()
    return RunStart(row.horizon, row.previous_started_at)


def left_open(connection: Connection, run_ids: Sequence[str]) -> frozenset[str]:
    """Those of some runs whose record, or the record of whose batch, is open; in a transaction."""
    return frozenset(connection.execute(_LEFT_OPEN, {"run_ids": list(run_ids)}).scalars())


def has_repaired(connection: Connection, run_id: str) -> bool:
    """Whether a run has a row in the ledger; in a transaction."""
    return connection.execute(_HAS_REPAIRED, {"run_id": run_id}).scalar_one()


def reads_all(connection: Connection, run_id: str) -> bool:
    """Whether a run reads the whole log of its months."""
    record = read(connection, run_id)
    return record is not None and record.mode == Mode.FULL


def shown_run(connection: Connection, run_id: str, *, named: str, is_blocked: bool) -> RunRecord | None:
    """The run over the same extent that showed what may be approved, or None.

    Args:
        connection: In a transaction.
        run_id: Of the run that is approved; its record is open.
        named: The beginning of its id, or '' for the latest.
        is_blocked: Whether to find a blocked run, whose figures are current, or one that compared and was not blocked.
    """
    asked = {"run_id": run_id, "named": named, "is_blocked": is_blocked}
    found = connection.execute(statement("shown_run"), asked).mappings().one_or_none()
    return None if found is None else _record(found)


def finish(
    connection: Connection,
    run_id: str,
    outcome: str,
    *,
    mismatch_count: int | None = None,
    error: str | None = None,
) -> bool:
    """Close the record of a run; returns whether it was still open."""
    parameters = {"run_id": run_id, "outcome": outcome, "mismatch_count": mismatch_count, "error": error}
    return connection.execute(statement("finish_run"), parameters).rowcount == 1


def read(connection: Connection, run_id: str) -> RunRecord | None:
    """The record of a run, or None if it never opened one."""
    row = connection.execute(_READ_RUNS, {"run_id": run_id, "rows": 1}).mappings().one_or_none()
    return _record(row) if row is not None else None


def recent(connection: Connection, *, rows: int) -> tuple[RunRecord, ...]:
    """The latest runs, newest first; one whose process was killed before it closed its record has failed."""
    found = connection.execute(_READ_RUNS, {"run_id": None, "rows": rows}).mappings().all()
    return tuple(
        replace(_record(row), outcome="failed", error=_ABANDONED) if row["is_abandoned"] else _record(row)
        for row in found
    )


def first_started_at(connection: Connection) -> datetime | None:
    """When the first run on this database began, or None if none was made."""
    return connection.execute(_FIRST_STARTED_AT).scalar_one()


def _record(row: Any) -> RunRecord:
    return RunRecord(**{field.name: row[field.name] for field in fields(RunRecord)})


def delete_old_drift(connection: Connection, *, days: int) -> int:
    """Delete the drift of comparisons that are older than this; returns how many rows were deleted."""
    return connection.execute(_DELETE_OLD_DRIFT, {"days": days}).rowcount
