"""What the steps of a run share: settings, the database, the extent, and how the record is closed.

Invariant: a step that fails closes the record of its run with the error, and fails in Dagster with the same error.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dagster as dg
from pydantic import Field, PrivateAttr
from sqlalchemy import Connection

from recon_pipeline.assets import events_left, left_out
from recon_pipeline.assets.handover import failure
from recon_pipeline.assets.months import months_of_run_in_the_log
from recon_pipeline.assets.names import Names
from recon_pipeline.assets.reconciled_database import ReconciledDatabase
from recon_pipeline.assets.run_record import close_record
from recon_pipeline.core.approving import ShownRun
from recon_pipeline.core.errors import REPAIRS_STAY, BlockedError, PutOffError, ReconError
from recon_pipeline.core.periods import BillingMonth, range_in_words
from recon_pipeline.core.scope import Extent
from recon_pipeline.settings import Settings, known_months
from recon_pipeline.store.counters import compare, remembered_doubt
from recon_pipeline.store.counters.compare import Comparison
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.log.decision import decision
from recon_pipeline.store.postgres.database import BillingDatabase, Isolation, open_database
from recon_pipeline.store.records import run_metrics, runs
from recon_pipeline.store.records.runs import RunStart
from recon_pipeline.store.sums import modes
from recon_pipeline.store.sums.modes import Mode, ModeChoice
from recon_pipeline.store.sums.run import Reconciliation

_OUTCOMES: dict[type[ReconError], str] = {BlockedError: "blocked", PutOffError: "put_off"}


StepContext = dg.AssetExecutionContext | dg.AssetCheckExecutionContext


@dataclass(frozen=True)
class Step:
    """What one step of a run works with."""

    settings: Settings
    database: BillingDatabase
    run: Reconciliation
    full: bool
    while_paused: bool
    approve_reason: str
    approve_run: str
    approved_by: str
    names: Names
    log: Callable[[str], None]

    @property
    def how_to_approve(self) -> str:
        """What a person types, or clicks, to approve what this run shows."""
        run_id, extent = self.run.run_id, self.run.extent
        return ShownRun(
            run_id=run_id,
            first=extent.first,
            last=extent.last,
            customers=extent.customers or (),
            known=known_months(),
            job=self.names.of("reconcile"),
            reconciler=self.names.reconciler,
        ).how_to_approve

    @property
    def months(self) -> str:
        """The billing months of the run, for a person; the figures of a run are about all of them."""
        return range_in_words(self.run.extent.first, self.run.extent.last)

    def open(self, connection: Connection, tables: BillingTables) -> tuple[ModeChoice, RunStart]:
        """Open the record of the run, or find it open; its first step decides how event sums are taken."""
        record = runs.read(connection, self.run.run_id)
        if record is None:
            choice = modes.choose(connection, tables, is_asked_for_full=self.full)
        else:
            choice = ModeChoice(Mode(record.mode), record.mode_reason)
        return choice, runs.start(connection, self.run, mode=choice.mode, reason=choice.reason)

    @contextmanager
    def decision(self, isolation: Isolation = "REPEATABLE READ") -> Iterator[tuple[Connection, BillingTables]]:
        """A transaction that reads the application's tables for a decision, with what is known of them."""
        with self.database.connection() as connection, decision(connection, isolation) as tables:
            yield connection, tables

    def compare(self) -> tuple[Comparison, BillingTables]:
        """Compare counters with the log at one snapshot, and keep what differs under this run."""
        with self.decision("READ COMMITTED") as (connection, tables):
            choice, _ = self.open(connection, tables)
        with self.decision() as (connection, tables):
            compared = compare.compare(connection, self.run, tables, mode=choice.mode)
            events_left.let_through(connection, self.run, tables, self)
            found = compare.summarize(connection, self.run.run_id, counters_scanned=compared.counters_scanned)
            run_metrics.note_drift(connection, self.run.run_id, found.summary)
            run_metrics.note_compared(connection, self.run.run_id, compared)
        with self.database.transaction() as connection:
            remembered_doubt.note(connection, self.run.run_id)
        return found, tables

    def compared(self) -> tuple[Comparison, BillingTables]:
        """What this run's comparison found; compares now if no step of this run did."""
        with self.decision("READ COMMITTED") as (connection, tables):
            record = runs.read(connection, self.run.run_id)
            if record is not None and record.counters_scanned is not None:
                found = compare.summarize(connection, self.run.run_id, counters_scanned=record.counters_scanned)
                return found, tables
        return self.compare()

    def finish(self, outcome: str, *, mismatch_count: int | None = None, error: str | None = None) -> None:
        """Close the record of the run and log its metrics, once."""
        close_record(self.database, self.run.run_id, outcome, self.log, mismatch_count=mismatch_count, error=error)


class Reconciler(dg.ConfigurableResource[Any]):
    """What a person may set for one run, in the launchpad or through the command line."""

    customers: list[str] = Field(
        default=[],
        description="Only these customers, by gateway_customer_id, for example [cus_123]. Empty for all.",
    )
    full: bool = Field(
        default=False,
        description="Sum the log itself, and compare the stored aggregates with it.",
    )
    while_paused: bool = Field(default=False, description="Repair although somebody has paused repairs (recon pause).")
    approve_reason: str = Field(
        default="",
        description="Why this run may repair more than the budgets (RECON_MAX_...) allow, or lower counters for events "
        "that left the log. It is recorded with the run, and valid for what the latest run over the same months and "
        "customers has shown. Empty: it may do neither.",
    )
    approve_run: str = Field(
        default="",
        description="The run whose figures are approved: its id, or the beginning of it. Empty: the latest.",
    )
    approved_by: str = Field(
        default="",
        description="Who approves, recorded beside the reason. Empty: the run's tag `user`, or `unknown`.",
    )

    _database: BillingDatabase | None = PrivateAttr(default=None)
    _months: tuple[BillingMonth, BillingMonth] | None = PrivateAttr(default=None)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close the connection that the steps of the run shared."""
        if self._database is not None:
            self._database.close()

    @contextmanager
    def step(self, context: StepContext, database: ReconciledDatabase, names: Names) -> Iterator[Step]:
        """One step of a run; errors that the block raises are recorded, and fail the step in Dagster.

        Args:
            context: Of the step.
            database: That the run works on.
            names: Of the job and the resource with which a person would approve what the run shows.

        Raises:
            dg.Failure: With the error in it.
        """
        try:
            step = self._step(context.run, database.settings(), names, context.log.info)
        except ReconError as error:
            raise failure(error) from error
        try:
            yield step
        except ReconError as error:
            _record_failure(step, error, context.log.warning)
            if isinstance(error, BlockedError | PutOffError):
                left_out.report(context, error.what.rstrip("."))
            raise failure(error) from error

    def _step(self, run: dg.DagsterRun, settings: Settings, names: Names, log: Callable[[str], None]) -> Step:
        if self._database is None:
            self._database = open_database(settings, keeps_connection=True)
        if self._months is None:
            self._months = months_of_run_in_the_log(self._database, dict(run.tags))
        return Step(
            settings=settings,
            database=self._database,
            run=Reconciliation.of(
                settings, run.run_id, Extent(settings.scope, *self._months, tuple(self.customers) or None)
            ),
            full=self.full,
            while_paused=self.while_paused,
            approve_reason=self.approve_reason.strip(),
            approve_run=self.approve_run.strip(),
            approved_by=self.approved_by or run.tags.get("user", "unknown"),
            names=names,
            log=log,
        )


def _record_failure(step: Step, error: ReconError, warn: Callable[[str], None]) -> None:
    """Close the record with the error; where the database is out of reach, Dagster's own record is what remains."""
    try:
        if isinstance(error, PutOffError):
            _record_put_off(step, error)
        step.finish(_OUTCOMES.get(type(error), "failed"), error=str(error))
    except ReconError as unreachable:
        warn(f"The run's record in schema recon could not be closed: {unreachable.what}")


def _record_put_off(step: Step, error: PutOffError) -> None:
    """Open the record of a run that could not begin; of one that had repaired, say that this stays."""
    with step.database.transaction() as connection:
        if runs.read(connection, step.run.run_id) is None:
            # What the log lacks for another mode cannot be found out while another session has it locked.
            runs.start(connection, step.run, mode=Mode.FULL, reason="it was put off before it could begin")
        elif runs.has_repaired(connection, step.run.run_id):
            error.changed = REPAIRS_STAY
