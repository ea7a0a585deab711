"""Alerts in schema `recon`: what fails, and which ended runs were detected.

Invariant: a detected change and the message about it commit together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from recon_pipeline.core.alert_targets import AlertTarget
from recon_pipeline.core.alerts import Alarm, Change, Message, Observation, Severity, messages, observe, remind
from recon_pipeline.core.ended_runs import EndedRun, OwnRecord, observations, silence
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.store.counters.pause import read_pause
from recon_pipeline.store.postgres.statements import labelled, statement
from recon_pipeline.store.records import runs
from recon_pipeline.store.records.outbox import put_in_outbox
from recon_pipeline.store.records.retention import first_compared, read_retention

# The time up to which ended runs were detected.
_READ_ALERT_WATCH = labelled("read_alert_watch", "select runs_noticed_until from recon.alert_watch")
# Deletes the state of a subject that passes again.
# Binds: subject text
_DELETE_ALARM = labelled("delete_alarm", "delete from recon.alert_state where subject = :subject")
# Deletes runs so old that Dagster has deleted them.
# Binds: days integer, runs_noticed_until timestamptz
_FORGET_ALERT_RUNS = labelled(
    "forget_alert_runs",
    """
    delete from recon.alert_run
    where ended_at < cast(:runs_noticed_until as timestamptz) - make_interval(days => :days)
    """,
)
# Begins to watch, once: runs that ended before are not reported.
# Binds: runs_noticed_until timestamptz
_WATCH_ALERTS = labelled(
    "watch_alerts",
    """
    insert into recon.alert_watch (runs_noticed_until)
    values (:runs_noticed_until)
    on conflict do nothing
    """,
)
# The time up to which ended runs were detected, locked until the transaction ends.
# Invariant: two sessions detect changes one after the other, so no message is written twice.
_LOCK_ALERT_WATCH = labelled(
    "lock_alert_watch",
    """
    select watching_since, paused_at, runs_noticed_until, clock_timestamp() as now
    from recon.alert_watch
    for update
    """,
)
# Stores the state of a subject that fails.
# Index: the primary key of recon.alert_state.
# Binds: details text, failing_since timestamptz, partitions text[], severity text, subject text, told_at timestamptz
_WRITE_ALARM = labelled(
    "write_alarm",
    """
    insert into recon.alert_state (subject, severity, partitions, details, failing_since, told_at)
    values (:subject, :severity, :partitions, :details, :failing_since, :told_at)
    on conflict (subject) do update set
        severity = excluded.severity,
        partitions = excluded.partitions,
        details = excluded.details,
        told_at = excluded.told_at
    """,
)
# The subjects that fail now.
_READ_ALARMS = labelled(
    "read_alarms",
    """
    select subject, severity, partitions, details, failing_since, told_at
    from recon.alert_state
    order by failing_since, subject
    """,
)
# Moves the time up to which ended runs were detected, and records a pause while there is one.
# Binds: is_paused boolean, runs_noticed_until timestamptz
_NOTE_ALERT_WATCH = labelled(
    "note_alert_watch",
    """
    update recon.alert_watch
    set
        runs_noticed_until = greatest(runs_noticed_until, :runs_noticed_until),
        paused_at = case when :is_paused then clock_timestamp() else paused_at end
    """,
)
# Records runs that ended; returns those that were not known.
# Invariant: each run is returned once, however often it is read.
# Binds: ended_at timestamptz[], run_ids text[]
_NOTE_ALERT_RUNS = labelled(
    "note_alert_runs",
    """
    insert into recon.alert_run (run_id, ended_at)
    select run_id, ended_at
    from unnest(cast(:run_ids as text[]), cast(:ended_at as timestamptz[])) as ended (run_id, ended_at)
    on conflict do nothing
    returning run_id
    """,
)


@dataclass(frozen=True)
class Noticed:
    """What was noticed.

    Attributes:
        written: The messages about it.
        left_out: By subject, the months in which it failed and that no run compares any more.
    """

    written: tuple[Message, ...]
    left_out: tuple[Observation, ...]


KEEP_NOTICED_RUNS_DAYS = 40
"""Longer than Dagster keeps runs (`KEEP_RUNS_DAYS`)."""


def noticed_until(connection: Connection, *, otherwise: datetime) -> datetime:
    """The time up to which ended runs were detected; begins to watch at `otherwise` if no watch had begun."""
    connection.execute(_WATCH_ALERTS, {"runs_noticed_until": otherwise})
    return connection.execute(_READ_ALERT_WATCH).scalar_one()


def notice(
    connection: Connection,
    ended: Sequence[EndedRun],
    targets: Sequence[AlertTarget],
    *,
    database: str,
    first_month: BillingMonth,
    overview: str = "",
) -> Noticed:
    """Evaluate runs that ended, the dead man's switch and reminders; put the changes into the outbox.

    What failed in months that no run compares any more (`recon retention`) fails no longer.

    Args:
        connection: In a transaction, which commits all of it or nothing.
        ended: In the order in which they ended; runs that were detected before are skipped here.
        targets: Who gets the messages.
        database: Its name for people.
        first_month: RECON_START_PERIOD.
        overview: Where to look in the UI, or ''.
    """
    watch = connection.execute(_LOCK_ALERT_WATCH).one()
    fresh = _fresh(connection, ended)
    is_paused = read_pause(connection) is not None
    seen = [one for run in fresh for one in observations(run, _own_record(connection, run.run_id))]
    seen.append(
        silence(
            last_success=last_success(connection),
            paused_at=watch.now if is_paused else watch.paused_at,
            watching_since=watch.watching_since,
            now=watch.now,
            link=overview,
        )
    )
    compared_from = first_compared(read_retention(connection), first_month)
    until = max((run.ended_at for run in ended), default=watch.runs_noticed_until)
    connection.execute(_NOTE_ALERT_WATCH, {"runs_noticed_until": until, "is_paused": is_paused})
    connection.execute(_FORGET_ALERT_RUNS, {"runs_noticed_until": until, "days": KEEP_NOTICED_RUNS_DAYS})
    changes, left_out = _take_in(connection, seen, compared_from, at=watch.now)
    written = messages(changes, database=database)
    for message in written:
        put_in_outbox(connection, message, targets)
    return Noticed(written, left_out)


def alarms(connection: Connection) -> tuple[Alarm, ...]:
    """What fails now, the oldest first."""
    return tuple(
        Alarm(
            row.subject,
            Severity(row.severity),
            frozenset(map(BillingMonth.parse, row.partitions)),
            row.details,
            row.failing_since,
            row.told_at,
        )
        for row in connection.execute(_READ_ALARMS)
    )


def last_success(connection: Connection) -> datetime | None:
    """When a run over every customer last verified the current month, or None if none did."""
    found = connection.execute(statement("latest_run"), {"outcomes": ["clean", "not_clean"]}).one_or_none()
    return None if found is None else found.finished_at


def _fresh(connection: Connection, ended: Sequence[EndedRun]) -> list[EndedRun]:
    parameters = {"run_ids": [run.run_id for run in ended], "ended_at": [run.ended_at for run in ended]}
    unknown = set(connection.execute(_NOTE_ALERT_RUNS, parameters).scalars())
    return [run for run in ended if run.run_id in unknown]


def _own_record(connection: Connection, run_id: str) -> OwnRecord | None:
    record = runs.read(connection, run_id)
    return OwnRecord(record.outcome, record.customers is not None, record.error) if record else None


def _take_in(
    connection: Connection, seen: Sequence[Observation], compared_from: BillingMonth, *, at: datetime
) -> tuple[list[Change], tuple[Observation, ...]]:
    before = {alarm.subject: alarm for alarm in alarms(connection)}
    now: dict[str, Alarm | None] = dict(before)
    changes: list[Change | None] = []
    for one in seen:
        now[one.subject], change = observe(now.get(one.subject), one, at=at)
        changes.append(change)
    left_out = tuple(one for alarm in now.values() if alarm and (one := alarm.left_out(before=compared_from)))
    for one in left_out:
        now[one.subject], change = observe(now[one.subject], one, at=at)
        changes.append(change)
    for subject, alarm in now.items():
        if alarm is not None:
            now[subject], change = remind(alarm, at=at)
            changes.append(change)
    for subject, alarm in now.items():
        if alarm is None:
            connection.execute(_DELETE_ALARM, {"subject": subject})
        elif alarm != before.get(subject):
            _write_alarm(connection, alarm)
    return [change for change in changes if change is not None], left_out


def _write_alarm(connection: Connection, alarm: Alarm) -> None:
    connection.execute(
        _WRITE_ALARM,
        {
            "subject": alarm.subject,
            "severity": alarm.severity.value,
            "partitions": sorted(month.key for month in alarm.months),
            "details": alarm.details,
            "failing_since": alarm.failing_since,
            "told_at": alarm.told_at,
        },
    )
