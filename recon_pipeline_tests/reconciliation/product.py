"""The product as the tests run it: its steps through the store's functions, or whole through the real Dagster job."""

import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from sqlalchemy import Connection, TextClause, event

from recon_pipeline.core.event_identity import EventIdentity
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.quotas import Quota
from recon_pipeline.core.scope import Extent, MeteredUsage
from recon_pipeline.store.counters import chunks, compare, repair, verify
from recon_pipeline.store.counters.compare import Comparison
from recon_pipeline.store.counters.pause import ENTER_CHUNK
from recon_pipeline.store.counters.repair import RepairOutcome
from recon_pipeline.store.counters.verify import Verification
from recon_pipeline.store.log.billing_tables import BillingTables, require_trustworthy
from recon_pipeline.store.log.decision import decision
from recon_pipeline.store.postgres.database import BillingDatabase, Isolation
from recon_pipeline.store.postgres.statements import statement
from recon_pipeline.store.records import run_metrics, runs, schedule
from recon_pipeline.store.sums import increments, modes
from recon_pipeline.store.sums.increments import Advance
from recon_pipeline.store.sums.modes import Mode
from recon_pipeline.store.sums.run import Reconciliation
from recon_pipeline_tests.reconciliation.billing import GATEWAY, USAGE

if TYPE_CHECKING:
    from dagster import AssetCheckEvaluation, ExecuteInProcessResult

SCOPE = (MeteredUsage(GATEWAY, USAGE),)
QUOTAS = {USAGE: Quota(free=50, paid=10_000)}
PAID_STATUSES = ("active", "trialing")
_DEFAULT_IDENTITY = EventIdentity()
Hook = Callable[[], object]


@dataclass(frozen=True)
class Run:
    """One run, step by step through the store's functions."""

    database: BillingDatabase
    question: Reconciliation
    found: list[Comparison] = field(default_factory=list)

    def compare(self) -> Comparison:
        """Add to the aggregates what is new, compare at one snapshot and store what differs."""
        self.aggregate()
        with self.decision() as (connection, tables):
            mode = modes.choose(connection, tables).mode
            runs.start(connection, self.question, mode=mode)
        with self.decision("REPEATABLE READ") as (connection, tables):
            compared = compare.compare(connection, self.question, tables, mode=mode)
            comparison = compare.summarize(connection, self.question.run_id, counters_scanned=compared.counters_scanned)
            run_metrics.note_drift(connection, self.question.run_id, comparison.summary)
            run_metrics.note_compared(connection, self.question.run_id, compared)
        self.found.append(comparison)
        return comparison

    def repair(
        self,
        *,
        before: Mapping[str, Hook] | None = None,
        after: Mapping[str, Hook] | None = None,
        on_progress: Callable[[int], object] = lambda _: None,
        while_paused: bool = False,
    ) -> RepairOutcome:
        """Repair what `compare` found; hooks run once each, right before or after the first statement of that name."""

        def report(done: int) -> None:
            on_progress(done)

        tables = self.tables()
        with (
            self.database.connection() as connection,
            _hooked(connection, tables, before or {}, after or {}),
            _patient(is_hooked=bool(before or after)),
        ):
            outcome = repair.repair(
                connection,
                self.question,
                drift_count=self.found[-1].summary.drift_count,
                on_progress=report,
                while_paused=while_paused,
            )
        with self.database.transaction() as connection:
            run_metrics.note_repairs(connection, self.question.run_id, outcome)
        return outcome

    def verify(self) -> Verification:
        """Ask afresh whether counters and log match."""
        with self.decision() as (connection, tables):
            mode = modes.choose(connection, tables).mode
            below = run_metrics.compared_below(connection, self.question.run_id)
        with self.decision("REPEATABLE READ") as (connection, tables):
            return verify.verify(connection, self.question, tables, mode=mode, compared_below=below)

    def note_verified(self, answer: Verification) -> None:
        """Remember what matched, so that the next run looks only at what changed since."""
        with self.decision() as (connection, tables):
            schedule.note_verified(connection, self.question, tables, answer)

    def aggregate(self) -> Advance | None:
        """Add what is new to the aggregates; nothing where the log cannot be read in increments."""
        with self.decision() as (connection, tables):
            if modes.choose(connection, tables).mode is Mode.FULL:
                return None
            return increments.advance(connection, self.question, tables)

    @contextmanager
    def decision(self, isolation: Isolation = "READ COMMITTED") -> Iterator[tuple[Connection, BillingTables]]:
        """A transaction that reads the application's tables for a decision."""
        with self.database.connection() as connection, decision(connection, isolation) as tables:
            yield connection, tables

    def tables(self) -> BillingTables:
        """How the tables are shaped."""
        with self.database.transaction() as connection:
            return require_trustworthy(connection)


def new_run(
    url: str,
    *,
    first: str = "2025-05",
    last: str = "2025-05",
    customers: tuple[str, ...] | None = None,
    settle_seconds: int = 0,
    quotas: Mapping[str, Quota] = QUOTAS,
    paid_statuses: tuple[str, ...] = PAID_STATUSES,
    scope: tuple[MeteredUsage, ...] = SCOPE,
    event_identity: EventIdentity = _DEFAULT_IDENTITY,
    max_events_left: int = 10**9,
    refuses_negative: bool = True,
) -> Run:
    """A run over some months that has done nothing yet; what left the log is let through, unless a test says less."""
    extent = Extent(scope, BillingMonth.parse(first), BillingMonth.parse(last), customers)
    question = Reconciliation(
        str(uuid.uuid4()), extent, settle_seconds, quotas, paid_statuses, max_events_left, refuses_negative
    )
    return Run(kept_database(url, event_identity), question)


@lru_cache(maxsize=4)
def kept_database(url: str, event_identity: EventIdentity = _DEFAULT_IDENTITY) -> BillingDatabase:
    """One for all runs of a test: a new session reads the catalog and plans every statement with nothing in its cache.

    The connections of an earlier test's are closed.
    """
    database = BillingDatabase(url, keeps_connection=True, event_identity=event_identity)
    weakref.finalize(database, database.engine.dispose)
    return database


def reconcile(url: str, **question: Any) -> RepairOutcome:
    """Compare and repair once."""
    run = new_run(url, **question)
    run.compare()
    return run.repair()


def mismatch_count(url: str, **question: Any) -> int:
    """How many keys differ right now."""
    return new_run(url, **question).verify().mismatch_count


@contextmanager
def _patient(*, is_hooked: bool) -> Iterator[None]:
    """What a test does in the middle of a chunk may take longer than a chunk may be idle."""
    if not is_hooked:
        yield
        return
    with patch.object(chunks, "CHUNK_IDLE_TIMEOUT_MS", 60_000):
        yield


def _clause(name: str, tables: BillingTables) -> TextClause:
    if name == "enter_chunk":
        return ENTER_CHUNK
    if name == "repair_locked_counters":
        return statement(name, tables.parts, locked_sums="locked_sums")
    return statement(name)


@contextmanager
def _hooked(
    connection: Connection, tables: BillingTables, before: Mapping[str, Hook], after: Mapping[str, Hook]
) -> Iterator[None]:
    waiting = {"before_execute": dict(before), "after_execute": dict(after)}
    names = {_clause(name, tables): name for name in (*before, *after)}

    def call(moment: str) -> Callable[..., None]:
        def hook(_: Connection, executed: Any, *rest: Any) -> None:
            act = waiting[moment].pop(names.get(executed, ""), None)
            if act is not None:
                act()

        return hook

    for moment in waiting:
        event.listen(connection, moment, call(moment))
    yield
    left = {moment: list(hooks) for moment, hooks in waiting.items() if hooks}
    if left:
        raise AssertionError(f"the repair never came to {left}")


def run_job(*, first: str = "2025-05", last: str = "2025-05", only: str | None = None, **config: Any) -> "JobResult":
    """One run of the job `reconcile`, in this process; the environment says which database."""
    # Only now: definitions read RECON_START_PERIOD when they load, and the developer's must not reach them.
    import dagster as dg

    from recon_pipeline.assets.months import range_tags
    from recon_pipeline.definitions import defs

    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_job_def("reconcile").execute_in_process(
            instance=instance,
            tags=range_tags(BillingMonth.parse(first), BillingMonth.parse(last)),
            run_config={"resources": {"reconciler": {"config": config}}},
            asset_selection=[dg.AssetKey(only)] if only else None,
            raise_on_error=False,
        )
        return JobResult(result)


@dataclass(frozen=True)
class JobResult:
    """What a run of the job left behind."""

    result: "ExecuteInProcessResult"

    @property
    def success(self) -> bool:
        """Whether Dagster calls the run a success."""
        return self.result.success

    @property
    def run_id(self) -> str:
        """Dagster's id of the run."""
        return self.result.run_id

    @property
    def checks(self) -> "dict[str, AssetCheckEvaluation]":
        """The evaluation of each check, by its name; of several months, of the last that failed, or the last."""
        said: dict[str, AssetCheckEvaluation] = {}
        for check in self.result.get_asset_check_evaluations():
            if not check.passed or said.get(check.check_name, check).passed:
                said[check.check_name] = check
        return said

    def check(self, name: str) -> "AssetCheckEvaluation":
        """The evaluation of one check."""
        return self.checks[name]

    @property
    def errors(self) -> str:
        """Everything that failed steps said."""
        said = [event.step_failure_data.error for event in self.result.all_events if event.is_step_failure]
        return "\n".join(str(error) for error in said)
