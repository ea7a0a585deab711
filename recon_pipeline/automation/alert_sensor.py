"""The sensor `alerts`: closes records that runs left open, detects changes, records each with its message, and sends.

Invariant: schema `recon` records up to which run changes were detected, in the transaction that writes the messages.
So the next evaluation does the work of a missed or failed one. While that database cannot be used, Dagster's cursor
records since when, and targets are notified without an outbox.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from recon_pipeline.assets.names import Names
from recon_pipeline.automation.alert_delivery import Attempt, deliver
from recon_pipeline.automation.alert_services import send
from recon_pipeline.automation.ended_runs import OVERLAP_MINUTES, ended_runs
from recon_pipeline.automation.installation import Installation
from recon_pipeline.automation.open_records import close_left_open
from recon_pipeline.automation.own_runs import OwnRuns
from recon_pipeline.core.alerts import DEAD_MANS_SWITCH_MINUTES, REMINDER_HOURS, Message, Severity, incident
from recon_pipeline.core.errors import ReconError
from recon_pipeline.settings import Alerting, read_alerting
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.records import alerts as store

EVERY_SECONDS = 45


@dataclass(frozen=True)
class Outage:
    """Since when the database of the outbox cannot be used, kept in Dagster's cursor.

    Attributes:
        since: When the outage was first seen, ISO 8601.
        told_at: When the targets were last notified, or None.
    """

    since: str
    told_at: str | None = None


def alerts(ours: Installation) -> dg.SensorDefinition:
    """The sensor of that installation."""

    @dg.sensor(
        name=ours.names.of("alerts"),
        minimum_interval_seconds=EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Notifies RECON_ALERT_URLS when a check or a run fails or passes again, and when no run succeeds. "
        "Closes the record of a run that a crash or a person ended.",
    )
    def evaluated(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return _evaluated(context, ours)

    return evaluated


def _evaluated(context: dg.SensorEvaluationContext, ours: Installation) -> dg.SensorResult:
    """Close records, detect changes and deliver messages; Dagster's page of the sensor shows the result."""
    alerting = read_alerting()
    database = ours.database.open()
    outage = Outage(**json.loads(context.cursor)) if context.cursor else None
    try:
        written = _notice(context, ours.names, database, alerting)
        attempts = deliver(database, alerting.targets)
    except ReconError as error:
        outage = _report_outage(outage or Outage(_now().isoformat()), database, alerting, error, context)
        return _result(f"No change was detected: {error.what}", json.dumps(asdict(outage)))
    for message in written:
        context.log.info(f"{message.title}\n{message.body}")
    _log_failures(context, attempts)
    if outage is not None and outage.told_at is not None:
        _log_failures(context, _send_to_all(alerting, _back_again(database, outage)))
    failed = [attempt for attempt in attempts if attempt.error is not None]
    return _result(
        f"{len(written)} messages written, {len(attempts) - len(failed)} delivered, {len(failed)} attempts failed"
        + ("." if alerting.targets else "; RECON_ALERT_URLS is not set, so no alert is sent."),
        "",
    )


def _notice(
    context: dg.SensorEvaluationContext, names: Names, database: BillingDatabase, alerting: Alerting
) -> tuple[Message, ...]:
    with database.transaction() as connection:
        # Runs that ended before the first evaluation send no alert, although the overlap would read them.
        since = store.noticed_until(connection, otherwise=_now() + timedelta(minutes=OVERLAP_MINUTES))
        own = OwnRuns.of_sensor(context, names, connection)
    ended = list(ended_runs(context.instance, own, since=since, ui_url=alerting.ui_url))
    close_left_open(database, ended, context.log.info)
    with database.transaction() as connection:
        return store.notice(
            connection,
            ended,
            alerting.targets,
            database=database.name,
            overview=f"{alerting.ui_url}/runs" if alerting.ui_url else "",
        )


def _report_outage(
    outage: Outage,
    database: BillingDatabase,
    alerting: Alerting,
    error: ReconError,
    context: dg.SensorEvaluationContext,
) -> Outage:
    """Notify all targets of the outage after `DEAD_MANS_SWITCH_MINUTES`, and again every `REMINDER_HOURS`."""
    context.log.error(str(error))
    now = _now()
    due = (
        datetime.fromisoformat(outage.told_at) + timedelta(hours=REMINDER_HOURS[Severity.ERROR])
        if outage.told_at
        else datetime.fromisoformat(outage.since) + timedelta(minutes=DEAD_MANS_SWITCH_MINUTES)
    )
    if now < due:
        return outage
    message = Message(
        Severity.ERROR,
        is_resolved=False,
        title="[recon error] FAILING: billing database cannot be used",
        body=f"Since {outage.since[:16]} UTC neither counters nor alerts can be read.\n{error}\n\n"
        f"Database: {database.name}",
        failing=(incident("billing database cannot be used", database.name),),
        resolved=(),
    )
    attempts = _send_to_all(alerting, message)
    _log_failures(context, attempts)
    is_delivered = any(attempt.error is None for attempt in attempts)
    return Outage(outage.since, now.isoformat()) if is_delivered else outage


def _back_again(database: BillingDatabase, outage: Outage) -> Message:
    return Message(
        Severity.ERROR,
        is_resolved=True,
        title="[recon error] RESOLVED: billing database cannot be used",
        body=f"It can be used again; the outage began at {outage.since[:16]} UTC.\n\nDatabase: {database.name}",
        failing=(),
        resolved=(incident("billing database cannot be used", database.name),),
    )


def _send_to_all(alerting: Alerting, message: Message) -> list[Attempt]:
    return [
        Attempt(target.name, message.title, send(target, message))
        for target in alerting.targets
        if message.severity in target.severities
    ]


def _log_failures(context: dg.SensorEvaluationContext, attempts: Sequence[Attempt]) -> None:
    for attempt in attempts:
        if attempt.error is not None:
            context.log.error(f"Alert target {attempt.target} did not get {attempt.title!r}: {attempt.error}")


def _result(summary: str, cursor: str) -> dg.SensorResult:
    return dg.SensorResult(skip_reason=summary, cursor=cursor)


def _now() -> datetime:
    return datetime.now(UTC)
