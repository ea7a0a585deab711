"""The sensor `alerts`: closes records that runs left open, detects changes, records each with its message, and sends.

Invariant: schema `recon` records up to which run changes were detected, in the transaction that writes the messages.
So the next evaluation does the work of a missed or failed one. Dagster's cursor records up to when people's actions
were shown, and, while that database cannot be used, since when, and who has not got the message: targets are then
notified without an outbox, and that it can be used again goes through the outbox.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta

import dagster as dg

from recon_pipeline.assets.names import Names
from recon_pipeline.automation import not_compared
from recon_pipeline.automation.alert_delivery import Attempt, deliver, send_to_all
from recon_pipeline.automation.ended_runs import OVERLAP_MINUTES, ended_runs
from recon_pipeline.automation.installation import Installation
from recon_pipeline.automation.open_records import close_left_open
from recon_pipeline.automation.own_runs import OwnRuns
from recon_pipeline.automation.shown_actions import show_actions
from recon_pipeline.core.alerts import DEAD_MANS_SWITCH_MINUTES, REMINDER_HOURS, Message, Severity, incident
from recon_pipeline.core.errors import ReconError
from recon_pipeline.settings import Alerting, read_alerting, read_start_period
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.records import alerts as store
from recon_pipeline.store.records.outbox import put_in_outbox

EVERY_SECONDS = 45


@dataclass(frozen=True)
class Cursor:
    """What is kept in Dagster, each a time in ISO 8601 or None.

    Attributes:
        since: When it was first seen that the database of the outbox cannot be used, while that is so.
        told_at: When the targets were last notified of that, whether they took the message or not.
        tried_at: When the message was last sent to those that had not taken it.
        waiting: The fingerprints of those that did not take that message yet.
        shown_until: Up to when people's actions are shown in this Dagster, by the database's clock.
    """

    since: str | None = None
    told_at: str | None = None
    tried_at: str | None = None
    waiting: tuple[str, ...] = ()
    shown_until: str | None = None


def alerts(ours: Installation) -> dg.SensorDefinition:
    """The sensor of that installation."""

    @dg.sensor(
        name=ours.names.of("alerts"),
        minimum_interval_seconds=EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Notifies RECON_ALERT_URLS when a check or a run fails or passes again, and when no run succeeds. "
        "Closes the record of a run that a crash or a person ended. Shows on the counters what people did by command.",
    )
    def evaluated(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return _evaluated(context, ours)

    return evaluated


def _evaluated(context: dg.SensorEvaluationContext, ours: Installation) -> dg.SensorResult:
    """Close records, detect changes and deliver messages; Dagster's page of the sensor shows the result."""
    alerting = read_alerting()
    database = ours.database.open()
    cursor = Cursor(**json.loads(context.cursor)) if context.cursor else Cursor()
    try:
        written = _notice(context, ours.names, database, alerting)
        if cursor.told_at is not None:
            written += (_tell_that_it_is_back(database, alerting, cursor),)
        attempts = deliver(database, alerting.targets)
        shown_before = datetime.fromisoformat(cursor.shown_until) if cursor.shown_until else None
        shown_until, shown = show_actions(context.instance, ours.names, database, since=shown_before)
    except ReconError as error:
        cursor = _report_outage(cursor, database, alerting, error, context)
        return _result(f"No change was detected: {error.what}", cursor)
    for message in written:
        context.log.info(f"{message.title}\n{message.body}")
    _log_failures(context, attempts)
    failed = [attempt for attempt in attempts if attempt.error is not None]
    return _result(
        f"{len(written)} messages written, {len(attempts) - len(failed)} delivered, {len(failed)} attempts failed"
        + (f", {shown} actions of people shown" if shown else "")
        + ("." if alerting.targets else "; RECON_ALERT_URLS is not set, so no alert is sent."),
        Cursor(shown_until=shown_until.isoformat()),
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
        noticed = store.notice(
            connection,
            ended,
            alerting.targets,
            database=database.name,
            first_month=read_start_period(),
            overview=f"{alerting.ui_url}/runs" if alerting.ui_url else "",
        )
        # Before the commit: what was not recorded is noticed again.
        not_compared.report(context.instance, names, noticed.left_out)
    return noticed.written


def _report_outage(
    cursor: Cursor,
    database: BillingDatabase,
    alerting: Alerting,
    error: ReconError,
    context: dg.SensorEvaluationContext,
) -> Cursor:
    """Notify all targets of the outage after `DEAD_MANS_SWITCH_MINUTES`, and again every `REMINDER_HOURS`.

    A target that did not take the message gets it again, each time after twice as long: it may have, and answered late.
    """
    context.log.error(str(error))
    now = _now()
    cursor = replace(cursor, since=cursor.since or now.isoformat())
    is_due, is_again = _is_due(cursor, now)
    targets = [
        target
        for target in alerting.targets
        if Severity.ERROR in target.severities and (is_due or (is_again and target.fingerprint in cursor.waiting))
    ]
    if not targets:
        return cursor
    message = Message(
        Severity.ERROR,
        is_resolved=False,
        title="[recon error] FAILING: billing database cannot be used",
        body=f"Since {(cursor.since or '')[:16]} UTC neither counters nor alerts can be read.\n{error}\n\n"
        f"Database: {database.name}",
        failing=(incident("billing database cannot be used", database.name),),
        resolved=(),
    )
    attempts = send_to_all(targets, message)
    _log_failures(context, attempts)
    failed = {attempt.target for attempt in attempts if attempt.error is not None}
    return replace(
        cursor,
        told_at=now.isoformat() if is_due else cursor.told_at,
        tried_at=now.isoformat(),
        waiting=tuple(target.fingerprint for target in targets if target.name in failed),
    )


def _is_due(cursor: Cursor, now: datetime) -> tuple[bool, bool]:
    """Whether all targets are to be notified of the outage, and whether those that did not take the last message."""
    if cursor.told_at is None or cursor.tried_at is None:
        since = datetime.fromisoformat(cursor.since or now.isoformat())
        return now >= since + timedelta(minutes=DEAD_MANS_SWITCH_MINUTES), False
    told_at = datetime.fromisoformat(cursor.told_at)
    is_due = now >= told_at + timedelta(hours=REMINDER_HOURS[Severity.ERROR])
    return is_due, now - told_at >= 2 * (datetime.fromisoformat(cursor.tried_at) - told_at)


def _tell_that_it_is_back(database: BillingDatabase, alerting: Alerting, cursor: Cursor) -> Message:
    since = (cursor.since or "")[:16]
    message = Message(
        Severity.ERROR,
        is_resolved=True,
        title="[recon error] RESOLVED: billing database cannot be used",
        body=f"It can be used again; the outage began at {since} UTC.\n\nDatabase: {database.name}",
        failing=(),
        resolved=(incident("billing database cannot be used", database.name),),
    )
    with database.transaction() as connection:
        put_in_outbox(connection, message, alerting.targets)
    return message


def _log_failures(context: dg.SensorEvaluationContext, attempts: Sequence[Attempt]) -> None:
    for attempt in attempts:
        if attempt.error is not None:
            context.log.error(f"Alert target {attempt.target} did not get {attempt.title!r}: {attempt.error}")


def _result(summary: str, cursor: Cursor) -> dg.SensorResult:
    return dg.SensorResult(skip_reason=summary, cursor=json.dumps(asdict(cursor)))


def _now() -> datetime:
    return datetime.now(UTC)
