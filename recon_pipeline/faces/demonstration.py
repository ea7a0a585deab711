"""What `recon demo` does: a month goes wrong on an embedded Postgres, and the real job repairs it once it is approved.

Always on the embedded server, whatever DATABASE_URL says: made-up usage has no place in a real database.
Always with the default settings and one metered usage, whatever RECON_ variables say: its story fits these.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import psycopg
from psycopg import sql
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from recon_pipeline.core.approving import ShownRun
from recon_pipeline.embedded_postgres import BILLING_DATABASE, DAGSTER_DATABASE, EmbeddedServer, ensure_running
from recon_pipeline.faces import demo_closing, demo_parity, reconciled
from recon_pipeline.faces.console import EXIT_CLEAN, EXIT_NOT_CLEAN, err, out
from recon_pipeline.faces.demo import Story, play_the_month
from recon_pipeline.faces.demo.population import GATEWAY_NAME, USAGE_TYPE
from recon_pipeline.faces.demo_closing import ClosedMonth, close_oldest_month
from recon_pipeline.faces.demo_parity import ComparedUsage, compare_with_fake_stripe
from recon_pipeline.faces.init import prepare
from recon_pipeline.faces.orchestrator import open_instance
from recon_pipeline.faces.reconcile_job import Request, reconcile
from recon_pipeline.faces.reconciled import Reconciled
from recon_pipeline.settings import Settings, known_months, read_settings
from recon_pipeline.store.counters import compare
from recon_pipeline.store.postgres.database import BillingDatabase

_REASON = "all counters were right before these mishaps"


class _Bars:
    """Shows the stages of the month as progress bars."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def start(self, label: str, total: int) -> None:
        self._task = self._progress.add_task(label, total=total)

    def advance(self, n: int) -> None:
        if self._task is not None:
            self._progress.advance(self._task, n)

    def finish(self) -> None:
        self._task = None


@dataclass(frozen=True)
class Demonstrated:
    """What happened in the demo.

    Attributes:
        story: The month that went wrong.
        found: What the run found.
        sample: Some of the drifted keys.
        first: How the first run ended, which waits for an approval.
        repaired: How the run ended that was approved, and repaired them.
        after: How the comparison ended that followed.
        closed: The oldest month, which was closed then.
        compared: What a fake Stripe would bill; None: Stripe's SDK is not installed.
        settings: Of all of it.
    """

    story: Story
    found: compare.Comparison
    sample: tuple[compare.DriftedKey, ...]
    first: Reconciled
    repaired: Reconciled
    after: Reconciled
    closed: ClosedMonth
    compared: ComparedUsage | None
    settings: Settings

    @property
    def success(self) -> bool:
        """Whether drift and differences were found and shown, and every counter matches its event sum at the end."""
        is_shown = self.first.record.outcome == "blocked"
        is_found = self.repaired.record.drift_count == self.story.drift_count
        is_repaired = self.repaired.record.outcome == "clean" and self.after.record.drift_count == 0
        return is_shown and is_found and is_repaired and (self.compared is None or self.compared.is_complete)


def demonstrate(*, events: int, customers: int, seed: int) -> Demonstrated:
    """Play the month, reconcile it through Dagster as it is approved after the first run, and compare again."""
    with _embedded() as server, open_instance() as instance:
        url = _fresh_billing_database(server)
        _use_its_settings()
        os.environ["DATABASE_URL"] = url
        settings = read_settings()
        database = BillingDatabase(url)
        prepare(database, with_billing_tables=True)
        with _bars() as progress:
            story = play_the_month(
                url, events=events, customers=customers, seed=seed, now=datetime.now(UTC), progress=progress
            )
        request = Request(*known_months())
        with err.status("Running the job reconcile …"):
            first = reconcile(settings, instance, request)
            repaired = reconcile(
                settings, instance, replace(request, approve_reason=_REASON, approve_run=first.record.run_id)
            )
        with database.transaction() as connection:
            found = compare.summarize(
                connection, repaired.record.run_id, counters_scanned=repaired.record.counters_scanned or 0
            )
            sample = compare.sample(connection, repaired.record.run_id)
        with err.status("Comparing once more …"):
            after = reconcile(settings, instance, replace(request, dry_run=True))
        with err.status("Closing the oldest month …"):
            closed = close_oldest_month(database, settings, server.folder.parent / "demo-archive")
        with err.status("Comparing with a fake Stripe …"):
            compared = compare_with_fake_stripe(database, url, now=datetime.now(UTC))
    return Demonstrated(story, found, sample, first, repaired, after, closed, compared, settings)


def exit_code(played: Demonstrated) -> int:
    """0 only for a success."""
    return EXIT_CLEAN if played.success else EXIT_NOT_CLEAN


@contextmanager
def _embedded() -> Iterator[EmbeddedServer]:
    """The embedded server, with Dagster's storage on it, stopped at the end unless a `recon dev` uses it."""
    if os.environ.get("DATABASE_URL"):
        err.print("The demo does not touch DATABASE_URL; it uses the embedded Postgres.")
    with err.status("Starting the embedded Postgres …"):
        server = ensure_running(keep_running=False)
        os.environ["DAGSTER_PG_URL"] = server.ensure_database(DAGSTER_DATABASE)
    try:
        yield server
    finally:
        server.stop()


def _use_its_settings() -> None:
    for name in [name for name in os.environ if name.startswith("RECON_")]:
        del os.environ[name]
    os.environ["RECON_SCOPE"] = f"{GATEWAY_NAME}:{USAGE_TYPE}"


def _fresh_billing_database(server: EmbeddedServer) -> str:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        name = sql.Identifier(BILLING_DATABASE)
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(name))
    return server.ensure_database(BILLING_DATABASE)


@contextmanager
def _bars() -> Iterator[_Bars]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err) as progress:
        yield _Bars(progress)


def _drift_table(comparison: compare.Comparison) -> pd.DataFrame:
    """Drifted keys by month (rows) and kind (columns), with totals."""
    cells = pd.DataFrame(
        [(cell.partition, cell.kind, cell.keys) for cell in comparison.cells], columns=["month", "kind", "keys"]
    )
    pivot = cells.pivot_table(
        index="month", columns="kind", values="keys", aggfunc="sum", fill_value=0, margins=True, margins_name="all"
    )
    kinds = [kind for kind in ("missing", "under", "over", "orphan", "all") if kind in pivot.columns]
    return pivot.loc[:, kinds]


def show(played: Demonstrated) -> None:
    """The story for a person."""
    story, record = played.story, played.repaired.record
    out.rule("What happened")
    out.print(
        f"{story.event_count:,} events of {story.customer_count:,} customers over six months of billing periods, "
        f"{story.counter_count:,} counters. Then:"
    )
    for mishap in story.mishaps:
        out.print(f"  • [bold]{mishap.name}[/]: {mishap.story}")
    out.rule("Drift before: keys by month and kind")
    frame = _drift_table(played.found)
    table = Table("month", *map(str, frame.columns))
    for month, counts in frame.iterrows():
        table.add_row(str(month), *(f"{int(count):,}" for count in counts))
    out.print(table)
    out.rule("The first run asks")
    for check in played.first.failed_checks:
        if check.is_error:
            out.print(f"[red]{check.name}[/]", escape(check.description), sep="\n", soft_wrap=True)
    months = known_months()
    command = ShownRun(played.first.record.run_id, *months, (), months).approval(_REASON)
    out.print(f"So it was approved, as a person would do: [bold]{escape(command)}[/]", soft_wrap=True)
    out.rule("Repaired")
    repairs = Table("customer", "period start", "kind", "before", "after", "limit", "quota")
    for key in played.sample[:8]:
        limit = f"{int(key.usage_limit):,}" if key.usage_limit else "-"
        before = f"{int(key.usage_count):,}" if key.usage_count else "no row"
        repairs.add_row(
            key.gateway_customer_id, key.period_start[:10], key.kind, before, f"{int(key.event_sum):,}", limit,
            {"over": "now over", "under": "unblocked"}.get(key.quota_transition, ""),
        )  # fmt: skip
    out.print(repairs)
    out.print(f"… and {max(0, (record.rows_repaired or 0) - 8):,} more, each with a row in recon.counter_repair.")
    for name in ("drift_count", "dedupe_count", "reconcile_failures", "over_quota_transitions"):
        out.print(f"  {name:24} {getattr(record, name) or 0:>8,}")
    out.print(f"  {'(back under quota)':24} {record.under_quota_transitions or 0:>8,}")
    for check in played.repaired.failed_checks:
        out.print(f"  [yellow]{check.name}[/]: {escape(check.description)}")
    out.rule("The same comparison after")
    left = played.after.record.drift_count
    verdict = f"[red]{left} keys drifted[/]" if left else "[bold green]no drift: every counter equals its event sum[/]"
    out.print(f"{played.after.record.counters_scanned or 0:,} counters compared: {verdict}.")
    demo_closing.show(played.closed)
    demo_parity.show(played.compared)
    out.rule("What next")
    recon = "uv run recon" if "UV" in os.environ else "recon"  # uv says so to what it runs
    out.print(
        f"  {recon} dev      the UI: run {record.run_id[:8]} is under Runs, the assets under Lineage\n"
        f"  {recon} status   what was found and repaired lately\n"
        f"  {recon} reconcile --dry-run\n"
        "Your own database: export DATABASE_URL and DAGSTER_PG_URL, then recon init, recon doctor. "
        f"Scope: {', '.join(map(str, played.settings.scope))} (RECON_SCOPE)."
    )


def as_json(played: Demonstrated) -> dict[str, Any]:
    """The one object of `--json`."""
    story = played.story
    return {
        "success": played.success,
        "events": story.event_count,
        "counters": story.counter_count,
        "mishaps": [
            {"name": mishap.name, "story": mishap.story, "keys": len(mishap.keys), "quantity": mishap.quantity}
            for mishap in story.mishaps
        ],
        "first_run": reconciled.as_json(reconciled.summarize([played.first], dry_run=False)),
        "repaired": reconciled.as_json(reconciled.summarize([played.repaired], dry_run=False)),
        "after": reconciled.as_json(reconciled.summarize([played.after], dry_run=True)),
        "closed": demo_closing.as_json(played.closed),
        "parity": demo_parity.as_json(played.compared),
    }
