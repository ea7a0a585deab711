"""What `recon doctor` shows: every requirement of a run, pass or fail, with its fix. Changes nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.markup import escape
from rich.table import Column, Table
from sqlalchemy import Connection

from recon_pipeline.core.approving import SEE_ALL
from recon_pipeline.core.database_url import redacted
from recon_pipeline.core.errors import ReconError, one_line
from recon_pipeline.core.findings import Finding, Verdict, failed, noted, passed
from recon_pipeline.faces.assumptions import Assumption, in_words, read_assumptions
from recon_pipeline.faces.billing import existing_url, which_database
from recon_pipeline.faces.console import out
from recon_pipeline.faces.doctor_dagster import check_dagster
from recon_pipeline.faces.doctor_stripe import check_stripe
from recon_pipeline.settings import Settings, known_months, start_period_is_declared
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
    yield from check_dagster(url)
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
    few = "; ".join(
        f"{one_line(one.gateway_customer_id)} {one.period_start} to {one.period_end}" for one in beyond.sample[:3]
    )
    yield (
        noted("counters in known months", f"{said} For example: {few}")
        if said
        else passed("counters in known months", "all")
    )
