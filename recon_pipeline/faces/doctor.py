"""What `recon doctor` shows: every requirement of a run, pass or fail, with its fix. Changes nothing."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dagster import DagsterInstance
from dagster._core.scheduler.instigation import InstigatorStatus
from rich.markup import escape
from rich.table import Column, Table
from sqlalchemy import Connection, make_url

from recon_pipeline.assets.names import Names
from recon_pipeline.automation.dagster_url import dagster_url, is_used_by
from recon_pipeline.core.approving import SEE_ALL
from recon_pipeline.core.database_url import redacted
from recon_pipeline.core.errors import ConfigurationError, ReconError
from recon_pipeline.core.findings import Finding, Verdict, failed, noted, passed
from recon_pipeline.faces.assumptions import Assumption, in_words, read_assumptions
from recon_pipeline.faces.billing import existing_url, which_database
from recon_pipeline.faces.console import out
from recon_pipeline.faces.dagster_home import require_records_apart, use_dagster_home
from recon_pipeline.faces.doctor_stripe import check_stripe
from recon_pipeline.faces.orchestrator import Part, load_part, open_records
from recon_pipeline.settings import Settings, known_months, read_alerting, read_name, start_period_is_declared
from recon_pipeline.store.counters.counters_beyond_months import described, find_counters_beyond
from recon_pipeline.store.log.tables import SUBSCRIPTIONS, describe_table
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.records import accepted_usages
from recon_pipeline.store.records.deletion_marks import check_deletion_marks
from recon_pipeline.store.records.negative_counters import check_negative_counters
from recon_pipeline.store.records.requirements import check_database
from recon_pipeline.store.records.retention import months_in_the_log, read_retention
from recon_pipeline.store.records.subscription_bounds import check_bounds

_COLOURS = {Verdict.PASS: "green", Verdict.NOTE: "yellow", Verdict.FAIL: "bold red"}


@dataclass(frozen=True)
class Examined:
    """What was found.

    Attributes:
        database: Which, for a person.
        findings: A verdict on each requirement.
        assumptions: Of this installation.
    """

    database: str
    findings: tuple[Finding, ...]
    assumptions: tuple[Assumption, ...]

    @property
    def is_healthy(self) -> bool:
        """Whether nothing stands in the way of a run."""
        return _is_healthy(self.findings)


def examine(settings: Settings) -> Examined:
    """Look at variables, database and orchestrator, one after the other.

    Raises:
        ConfigurationError: DATABASE_URL is not set, and there is no embedded database.
    """
    url = existing_url(settings)
    found = tuple(_findings(settings, url))
    return Examined(which_database(redacted(url), settings), found, read_assumptions(settings, url))


def as_json(examined: Examined) -> dict[str, Any]:
    """The one object of `--json`."""
    return {
        "success": examined.is_healthy,
        "findings": [
            {
                "requirement": finding.requirement,
                "verdict": str(finding.verdict),
                "detail": finding.detail,
                "mend": finding.fix,
            }
            for finding in examined.findings
        ],
        "assumptions": [asdict(one) for one in examined.assumptions],
    }


def show(examined: Examined) -> None:
    """The same for a person."""
    out.print(examined.database, markup=False, soft_wrap=True)
    table = Table("", "", Column(overflow="fold"), show_header=False, box=None, pad_edge=False)
    for finding in examined.findings:
        colour = _COLOURS[finding.verdict]
        table.add_row(f"[{colour}]{finding.verdict}[/]", finding.requirement, escape(finding.detail))
        if finding.fix:
            table.add_row("", "", f"[bold]→ {escape(finding.fix)}[/]")
    out.print(table)
    failures = sum(finding.verdict is Verdict.FAIL for finding in examined.findings)
    out.print(
        f"{failures} of {len(examined.findings)} requirements fail."
        if failures
        else "Everything a run relies on is there."
    )
    out.print()
    out.print(in_words(examined.assumptions), markup=False)


def _findings(settings: Settings, url: str) -> Iterator[Finding]:
    scope = ", ".join(map(str, settings.scope))
    yield passed("variables", f"scope {scope} from {settings.start_period.key}, settle {settings.settle_seconds} s")
    yield from _database(settings, url)
    yield from _dagster(url)
    yield from check_stripe(settings)
    unlimited = [str(usage) for usage in settings.scope if usage.usage_type not in settings.quotas]
    limited = f"RECON_QUOTAS has none for {', '.join(unlimited)}" if unlimited else "set for the whole scope"
    yield passed("limits", f"{limited}; a subscription is paid if its status is {' or '.join(settings.paid_statuses)}")


def _is_healthy(findings: Sequence[Finding]) -> bool:
    return all(finding.verdict is not Verdict.FAIL for finding in findings)


def _database(settings: Settings, url: str) -> Iterator[Finding]:
    database = BillingDatabase(url, event_identity=settings.event_identity)
    try:
        with database.transaction(any_schema_version=True) as connection:
            yield passed("connection", database.name)
            findings = tuple(check_database(connection))
            yield from findings
            if _is_healthy(findings):
                yield from _scope(settings, connection)
    except ReconError as error:
        yield failed("connection", error.what, error.fix)


def _scope(settings: Settings, connection: Connection) -> Iterator[Finding]:
    """What holds for the metered usages of the scope: their first run, and counters that no run compares."""
    first, current = known_months()
    in_log, _ = months_in_the_log(read_retention(connection), first, current)
    waiting = accepted_usages.waiting(connection, settings.scope, in_log)
    yield (
        noted(
            "first run",
            f"nothing of {', '.join(map(str, waiting))} is repaired before its first run was approved, "
            "unless every counter matches",
            f"{SEE_ALL} shows what would be repaired, and the command that approves it.",
        )
        if waiting
        else passed("first run", "approved, or every counter matched")
    )
    if not settings.refuses_negative:
        yield check_negative_counters(connection)
    yield from check_deletion_marks(connection, refuses=settings.refuses_deleted)
    if describe_table(connection, SUBSCRIPTIONS) is not None:
        yield check_bounds(connection, settings.scope, limited=settings.quotas, paid_statuses=settings.paid_statuses)
    beyond = find_counters_beyond(connection, settings.scope, first=first, last=current.next(), every=True)
    said = described(beyond, first=first, last=current.next(), is_declared=start_period_is_declared())
    few = "; ".join(f"{one.gateway_customer_id} {one.period_start} to {one.period_end}" for one in beyond.sample[:3])
    yield (
        noted("counters in known months", f"{said} For example: {few}")
        if said
        else passed("counters in known months", "all")
    )


def _dagster(billing_url: str) -> Iterator[Finding]:
    try:
        if is_used_by(use_dagster_home()):
            require_records_apart(billing_url, dagster_url())
        with open_records() as instance:
            runs = instance.get_runs_count()
            yield passed("Dagster storage", f"reachable, {runs:,} runs; DAGSTER_HOME {os.environ['DAGSTER_HOME']}")
            yield from _driver(instance)
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
    return passed("alerts", f"{len(targets)} targets; recon alerts test sends a message to each")


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
