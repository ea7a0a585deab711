"""The metrics that monitoring asks for.

They are read from records, so they survive restarts and are the same in every process.
"""

from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection

from recon_pipeline.core.alerts import Severity
from recon_pipeline.store.counters import holds
from recon_pipeline.store.counters.pause import read_pause
from recon_pipeline.store.parity.monitored import ParityMetrics, parity_metrics
from recon_pipeline.store.postgres.statements import statement
from recon_pipeline.store.records import alerts, outbox
from recon_pipeline.store.sums import horizons


@dataclass(frozen=True)
class RunTotals:
    """Over all runs that ended in one way."""

    outcome: str
    runs: int
    drift_count: int
    dedupe_count: int
    reconcile_failures: int
    over_quota_transitions: int
    under_quota_transitions: int
    rows_repaired: int


@dataclass(frozen=True)
class LatestRun:
    """The latest run over every customer and the current month; values are None where it did not get so far.

    Attributes:
        drift_count: Keys that its comparison found drifted.
        mismatch_count: Keys that still differed when it had repaired.
        duration_seconds: From its first step to its last.
        units_missed: By which its drifted counters were too low.
        units_excess: By which they were too high.
        events_left_the_log: Events that left the log, and for which counters were left alone.
        units_left_the_log: Their units in all.
    """

    run_id: str
    drift_count: int | None
    mismatch_count: int | None
    duration_seconds: float
    units_missed: Decimal
    units_excess: Decimal
    events_left_the_log: int
    units_left_the_log: Decimal


@dataclass(frozen=True)
class Metrics:
    """Everything at one moment.

    Attributes:
        totals: By outcome.
        latest: None before the first run ended.
        last_success: When a run last verified the current month for every customer, or None.
        horizon_lag_seconds: How long the oldest open transaction holds the horizon back; 0 if none does.
        open_holds: Customers and months that are left alone.
        is_paused: Whether repairs are.
        alarms: What fails, by severity.
        undelivered: Messages that a target has not got.
        parity: Of the comparison with Stripe.
    """

    totals: tuple[RunTotals, ...]
    latest: LatestRun | None
    last_success: datetime | None
    horizon_lag_seconds: float
    open_holds: int
    is_paused: bool
    alarms: dict[Severity, int]
    undelivered: int
    parity: ParityMetrics


def read(connection: Connection) -> Metrics:
    """Read them all; in a transaction."""
    oldest = horizons.oldest_transaction(connection)
    failing = alerts.alarms(connection)
    return Metrics(
        totals=tuple(
            RunTotals(**{field.name: row[field.name] for field in fields(RunTotals)})
            for row in connection.execute(statement("run_totals")).mappings()
        ),
        latest=_latest(connection),
        last_success=alerts.last_success(connection),
        horizon_lag_seconds=(oldest.seconds or 0.0) if oldest else 0.0,
        open_holds=len(holds.open_holds(connection)),
        is_paused=read_pause(connection) is not None,
        alarms={severity: sum(alarm.severity is severity for alarm in failing) for severity in Severity},
        undelivered=sum(one.messages for one in outbox.undelivered(connection)),
        parity=parity_metrics(connection),
    )


def _latest(connection: Connection) -> LatestRun | None:
    # A run that was put off has no figures.
    ended = ["clean", "not_clean", "compared", "paused", "blocked", "failed"]
    run = connection.execute(statement("latest_run"), {"outcomes": ended}).one_or_none()
    if run is None:
        return None
    units = connection.execute(statement("drifted_units"), {"run_id": run.run_id}).one()
    return LatestRun(
        run_id=run.run_id,
        drift_count=run.drift_count,
        mismatch_count=run.mismatch_count,
        duration_seconds=run.duration_seconds,
        units_missed=units.missed,
        units_excess=units.excess,
        events_left_the_log=run.events_left_the_log,
        units_left_the_log=run.units_left_the_log,
    )
