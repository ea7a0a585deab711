"""One run of the product: the code of its assets, one after the other, with a callback before each statement.

The assets' own functions run as they stand, without Dagster's run machinery, which takes longer than all they do. What
a blocking check stops in Dagster is stopped here.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable
from uuid import uuid4

import dagster as dg
from pydantic import PrivateAttr
from sqlalchemy import Connection, ExceptionContext, event, text
from sqlalchemy.exc import DBAPIError

from recon_pipeline.assets.reconciled_database import ReconciledDatabase
from recon_pipeline.assets.reconciler import Reconciler
from recon_pipeline.assets.run_record import close_record
from recon_pipeline.core.errors import BlockedError
from recon_pipeline.core.event_identity import EventIdentity
from recon_pipeline.core.guards import Budgets
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.settings import Settings
from recon_pipeline.store.postgres import statements
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.reconciliation.product import PAID_STATUSES, QUOTAS, SCOPE
from recon_pipeline_tests.support.assets import COMPARING, REPAIRING, body_of, checks_of, context_of

COMMIT = "commit"


NO_BUDGETS = Budgets(10**9, 10**9, 10**9, 10**9, 10**9)
"""For those who let very much go wrong within a day."""


@dataclass(frozen=True)
class RunOptions:
    """What a run is asked to do.

    Attributes:
        first: First month, `YYYY-MM`.
        last: Last month, included.
        customers: Only these, or all.
        full: From the log itself, with an audit of the aggregates.
        is_dry: Compare only.
        approve_reason: Lets it repair beyond the budgets.
        settle_seconds: As the environment would say.
        budgets: As the environment would say.
        refuses_negative: As the environment would say.
    """

    first: str = "2024-02"
    last: str = "2025-06"
    customers: tuple[str, ...] = ()
    full: bool = False
    is_dry: bool = False
    approve_reason: str = ""
    settle_seconds: int = 0
    budgets: Budgets = NO_BUDGETS
    refuses_negative: bool = False


class _Database(ReconciledDatabase):
    """One that reads no environment, so that several may run at once."""

    _settings: Settings = PrivateAttr()

    def settings(self) -> Settings:
        """Those that it was given."""
        return self._settings


@dataclass
class Statement:
    """A statement that is about to be executed.

    Attributes:
        name: With which the product sends it, or how it begins.
        text: What is sent; another text takes its place.
        parameters: What it binds, by name; other values take their place.
        is_another: It has another text now, without parameters.
    """

    name: str
    text: str
    parameters: dict[str, Any] = field(default_factory=dict)
    is_another: bool = False

    def become(self, text: str) -> None:
        """Have something else executed, without parameters."""
        self.text, self.parameters, self.is_another = text, {}, True

    @property
    def takes_snapshot(self) -> bool:
        """Whether a transaction has a snapshot once this was executed: SET and LOCK take none."""
        parts = re.sub(r"--.*|/\*.*?\*/", "", self.text).split(";")
        return not all(_TAKES_NO_SNAPSHOT.match(part) for part in parts if part.strip())


_TAKES_NO_SNAPSHOT = re.compile(r"\s*(set|lock|show|begin|start|savepoint|release)\b", re.IGNORECASE)


class Steering(Protocol):
    """A callback for everything that a run does in the database, before it does it."""

    def before_statement(self, connection: Connection, statement: Statement) -> None:
        """A statement is about to be executed, as it stands in `statement` after this."""
        ...

    def before_commit(self, connection: Connection) -> None:
        """The transaction is about to be committed."""
        ...

    def at_error(self, error: DBAPIError) -> DBAPIError | None:
        """Returns the error that takes the place of this one, if any."""
        ...


@runtime_checkable
class Attentive(Protocol):
    """A callback for transactions and sessions too."""

    def begins_transaction(self) -> None:
        """A transaction begins."""
        ...

    def connects(self, session: Any) -> None:
        """A session of the driver's was opened."""
        ...


@dataclass
class Ended:
    """How a run ended.

    Attributes:
        outcome: `clean`, `not_clean`, `compared`, `blocked` or `failed`.
        error: Why it failed.
        failed_checks: Names of the checks that did not pass.
        mismatch_count: What the last check found, where it was made.
    """

    run_id: str
    outcome: str = ""
    error: str = ""
    failed_checks: list[str] = field(default_factory=list)
    mismatch_count: int | None = None


def run(
    database: BillingDatabase,
    asked: RunOptions,
    *,
    report: Callable[[str], object] = lambda _: None,
    entering: Callable[[str], object] = lambda _: None,
) -> Ended:
    """Run the assets in order, as far as their blocking checks let them.

    Args:
        database: Keeps its connection, as that of a run does.
        asked: What to do.
        report: Called with the run's id before it begins.
        entering: Given the name of each asset, and of the last check, before it begins.
    """
    ended = Ended(str(uuid4()))
    report(ended.run_id)
    reconciler = Reconciler(customers=list(asked.customers), full=asked.full, approve_reason=asked.approve_reason)
    reconciler._database = database
    reconciled = _Database()
    reconciled._settings = Settings(
        database_url=None,
        scope=SCOPE,
        start_period=BillingMonth(2024, 1),
        settle_seconds=asked.settle_seconds,
        event_identity=EventIdentity(),
        quotas=QUOTAS,
        paid_statuses=PAID_STATUSES,
        refuses_negative=asked.refuses_negative,
        refuses_deleted=True,
        seal_after_days=0,
        budgets=asked.budgets,
    )
    context = context_of(ended.run_id, asked.first, asked.last, reconciler, reconciled, {})
    try:
        for asset in COMPARING + (() if asked.is_dry else REPAIRING):
            blocking = {spec.name for spec in asset.check_specs if spec.blocking}
            entering(asset.op.name)
            for check in checks_of(body_of(asset)(context)):
                if not check.passed and check.check_name not in ended.failed_checks:
                    ended.failed_checks.append(str(check.check_name))
                if "mismatch_count" in check.metadata:
                    found: Any = check.metadata["mismatch_count"].value
                    ended.mismatch_count = (ended.mismatch_count or 0) + found
            if blocking & set(ended.failed_checks):
                ended.outcome = "blocked"
                return ended
        if asked.is_dry:
            close_record(database, ended.run_id, "compared", lambda _: None)
        ended.outcome = "compared" if asked.is_dry else "not_clean" if ended.mismatch_count else "clean"
    except dg.Failure as failure:
        ended.outcome = "blocked" if isinstance(failure.__cause__, BlockedError) else "failed"
        ended.error = str(failure.description)
    return ended


def steer(database: BillingDatabase, steering: Steering) -> None:
    """Let somebody steer everything that is done through this database."""

    def before_execute(connection: Connection, clause: Any, multi: Any, parameters: Any, _: Any) -> Any:
        found = Statement(name_of(clause.text), clause.text, dict(parameters))
        steering.before_statement(connection, found)
        instead = text(found.text) if found.text != clause.text else clause
        return instead, () if found.is_another else multi, found.parameters

    def before_cursor_execute(
        connection: Connection, _: Any, sent: str, parameters: Any, context: Any, __: bool
    ) -> Any:  # what exec_driver_sql sends passes here alone
        if context.compiled is not None:
            return sent, parameters
        found = Statement(name_of(sent), sent)
        steering.before_statement(connection, found)
        return found.text, () if found.is_another else parameters

    def handle_error(context: ExceptionContext) -> Any:
        error = context.sqlalchemy_exception
        return steering.at_error(error) if isinstance(error, DBAPIError) else None

    event.listen(database.engine, "before_execute", before_execute, retval=True)
    event.listen(database.engine, "before_cursor_execute", before_cursor_execute, retval=True)
    event.listen(database.engine, "commit", steering.before_commit)
    if isinstance(steering, Attentive):
        event.listen(database.engine, "begin", lambda _: steering.begins_transaction())
        event.listen(database.engine, "connect", lambda session, _: steering.connects(session))
    event.listen(database.engine, "handle_error", handle_error, retval=True)


def name_of(body: str) -> str:
    """The name with which the product sends a statement, or how its text begins."""
    return statements.name_of(body) or body.split("\n")[0][:40]
