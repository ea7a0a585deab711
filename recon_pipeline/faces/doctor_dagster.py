"""What `recon doctor` checks of Dagster: its storage, what `dagster.yaml` names, the schedule and the alerts."""

import os
from collections.abc import Iterator

from dagster import DagsterInstance
from dagster._core.scheduler.instigation import InstigatorStatus
from dagster._core.storage.runs import SqlRunStorage
from sqlalchemy import make_url

from recon_pipeline.assets.names import Names
from recon_pipeline.automation.dagster_url import dagster_url, is_used_by
from recon_pipeline.core.errors import ConfigurationError, ReconError
from recon_pipeline.core.findings import Finding, Verdict, failed, noted, passed
from recon_pipeline.faces.dagster_home import require_records_apart, use_dagster_home
from recon_pipeline.faces.orchestrator import Part, load_part, open_records
from recon_pipeline.settings import read_alerting, read_name
from recon_pipeline.store.postgres.statements import labelled

# The time zone of the session, and whether it is UTC in winter and summer.
_TIME_ZONE = labelled(
    "time_zone_of_session",
    """
    select
        current_setting('timezone') as name,
        extract(timezone from timestamptz '2026-01-01 00:00:00+00') = 0
        and extract(timezone from timestamptz '2026-07-01 00:00:00+00') = 0 as is_utc
    """,
)


def check_dagster(billing_url: str) -> Iterator[Finding]:
    """Whether runs can be recorded and started: the storage, what `dagster.yaml` names, the schedule and alerts."""
    try:
        if is_used_by(use_dagster_home()):
            require_records_apart(billing_url, dagster_url())
        with open_records() as instance:
            runs = instance.get_runs_count()
            yield passed("Dagster storage", f"reachable, {runs:,} runs; DAGSTER_HOME {os.environ['DAGSTER_HOME']}")
            yield from _driver(instance)
            yield from _time_zone(instance)
            yield _part(instance, "compute log manager")
            yield _part(instance, "run launcher")
            coordinator = _part(instance, "run coordinator")
            yield coordinator
            if coordinator.verdict is Verdict.PASS:  # else Dagster does not know which daemons it needs
                yield _schedule(instance)
            yield _alerts(instance)
    except ReconError as error:
        yield failed("Dagster storage", error.what, error.fix)


def _driver(instance: DagsterInstance) -> Iterator[Finding]:
    """What dagster-postgres does with the URL of a storage that `dagster.yaml` names itself."""
    url = getattr(instance.event_log_storage, "postgres_url", None)
    if url is None or make_url(url).get_driver_name() != "psycopg":
        return
    yield failed(
        "Dagster storage driver",
        "SQLAlchemy opens the URL of Dagster's storage with psycopg 3, on which dagster-postgres fails with each event "
        "that a run reports (a syntax error in NOTIFY run_events)",
        "In the storage of dagster.yaml write postgresql+psycopg2:// as the beginning of postgres_url, or scheme: "
        "postgresql+psycopg2 below postgres_db; or install sqlalchemy<2.1.",
    )


def _time_zone(instance: DagsterInstance) -> Iterator[Finding]:
    """Whether Dagster reads the times of runs from Postgres as it wrote them."""
    storage = instance.run_storage
    if not isinstance(storage, SqlRunStorage):
        return
    with storage.connect() as connection:
        if connection.dialect.name != "postgresql":
            return
        zone = connection.execute(_TIME_ZONE).one()
    if not zone.is_utc:
        yield failed(
            "Dagster storage time zone",
            f"sessions with Dagster's storage have the time zone {zone.name}: in it Dagster writes when a run ended, "
            "and reads that as UTC. Alerts about runs come hours late or not at all, and new runs can seem lost",
            "Set PGTZ=UTC for webserver, daemon, code servers and the shells in which people type recon.",
        )


def _part(instance: DagsterInstance, part: Part) -> Finding:
    """What a run loads besides the storage, of a class that `dagster.yaml` names."""
    try:
        return passed(f"Dagster {part}", type(load_part(instance, part)).__name__)
    except ReconError as error:
        return failed(f"Dagster {part}", error.what, error.fix)


def _alerts(instance: DagsterInstance) -> Finding:
    try:
        targets = read_alerting().targets
    except ConfigurationError as error:
        return failed("alerts", error.what, error.fix)
    sensor = Names(read_name()).of("alerts")
    if _is_switched_off(instance, sensor):
        return failed("alerts", f"the sensor {sensor} was switched off", "Switch it on in the UI under Automation.")
    if not targets:
        return noted(
            "alerts",
            "RECON_ALERT_URLS is not set: failures are shown in the UI and in recon status, and no message is sent",
            "Set it like RECON_ALERT_URLS=slack://…, then recon alerts test.",
        )
    return passed("alerts", f"recon alerts test sends a message to each target; there are {len(targets)}")


def _is_switched_off(instance: DagsterInstance, name: str) -> bool:
    return any(
        state.instigator_name == name and state.status == InstigatorStatus.STOPPED
        for state in instance.all_instigator_state()
    )


def _schedule(instance: DagsterInstance) -> Finding:
    schedule = Names(read_name()).of("reconcile_every_5_minutes")
    if _is_switched_off(instance, schedule):
        return failed("schedule", f"{schedule} was switched off", "Switch it on in the UI under Automation.")
    scheduler = instance.get_daemon_statuses().get("SCHEDULER")
    if scheduler is None or scheduler.last_heartbeat is None:
        return noted(
            "schedule",
            f"{schedule} is on; no Dagster daemon was started here yet, so nothing runs it",
            "recon dev starts one; in production, dagster-daemon run next to your webserver.",
        )
    if not scheduler.healthy:
        return failed(
            "schedule",
            f"{schedule} is on, but no Dagster daemon is alive to run it",
            "Start recon dev, or dagster-daemon run next to your webserver.",
        )
    return passed("schedule", f"{schedule} is on and the daemon is alive")
