"""The column `ingest_xid` of the incremental mode: what of it the log has, and how the rest is added.

Invariant: a live log is never rewritten, and no session waits for long. The column is added without a default and gets
it afterwards, so only new rows are filled. The index is built concurrently. Each lock is requested briefly, again and
again. Before each step, the catalog shows what is left to do, so a preparation that was killed is continued, and two at
once do the work once.
"""

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from recon_pipeline.core.errors import ReconError
from recon_pipeline.store.postgres.database import begin
from recon_pipeline.store.postgres.errors import is_lock_conflict
from recon_pipeline.store.postgres.statements import labelled, statement

# Lets one preparation of a database in at a time.
# Invariant: ends with the transaction; the number is ours.
LOCK_MIGRATIONS = labelled("lock_migrations", "select pg_advisory_xact_lock(720271125)")
# No limits of time, for what is built concurrently.
_LIFT_TIME_LIMITS = labelled("lift_time_limits", "set lock_timeout = 0; set statement_timeout = 0")
# The limits of time that the session began with.
_RESET_TIME_LIMITS = labelled("reset_time_limits", "reset lock_timeout; reset statement_timeout")
# Whether recon init leaves the log as it is.
# Invariant: only recon init sets it, as a comment that goes with schema recon into each dump.
_IS_LEFT_ALONE = labelled(
    "is_log_left_alone",
    """
    select coalesce(obj_description(to_regnamespace('recon')::oid, 'pg_namespace') like '%--without-ingest-xid%', false)
    """,
)
# Sets that for every later recon init.
_LEAVE_ALONE = labelled(
    "leave_log_alone",
    "comment on schema recon is 'recon init --without-ingest-xid was run: the log is left as it is.'",
)
# Unsets it.
_ALLOW_TO_ALTER = labelled("allow_to_alter_log", "comment on schema recon is null")

LOG_LOCK_TIMEOUT_MS = 500
"""How long a step may wait for its lock: every later session waits behind it."""

LONG_LOG_LOCK_TIMEOUT_MS = 1_500
"""Every fifth attempt waits longer than `deadlock_timeout` (1 s), when Postgres cancels an autovacuum in the way."""

IDLE_TIMEOUT_MS = 1_750
"""A step that has its lock and whose process is frozen or cut off lets it go after this."""

LOCK_ATTEMPTS = 20

ATTEMPTS_OF_ONE_STEP = 5
"""A step that is lacking again after so many times does not help, for example as its index's name is taken."""

_AS_IT_STANDS = {"no_parameters": True}  # a name may hold a per cent sign


class Need(StrEnum):
    """What a lack means.

    Attributes:
        REQUIRED: Without it sums are taken from the whole log.
        ADVISED: The same, but the operator decides whether to add it.
        OPTIONAL: Runs are incremental without it; it saves work later.
    """

    REQUIRED = "required"
    ADVISED = "advised"
    OPTIONAL = "optional"


@dataclass(frozen=True)
class Lack:
    """Something that the log does not have.

    Attributes:
        kind: What that means.
        lacks: A sentence.
        statement: The SQL that fixes it, or None where none does.
        is_concurrent: It must run outside a transaction, and waits for open ones without blocking other sessions.
    """

    kind: Need
    lacks: str
    statement: str | None
    is_concurrent: bool

    @property
    def rules_out_increments(self) -> bool:
        """Whether runs have to be in full mode."""
        return self.kind is not Need.OPTIONAL


@dataclass(frozen=True)
class LogOwner:
    """Who may alter the log.

    Attributes:
        owner: Its role.
        missing_grant: The statement that lets it use schema `recon`, which the triggers need, or None if it can.
        is_ours_to_grant: We own schema `recon`.
    """

    owner: str
    missing_grant: str | None
    is_ours_to_grant: bool


def lacking(connection: Connection, *, refuses_repetitions: bool) -> tuple[Lack, ...]:
    """What the log lacks, in the order in which it is fixed; reads the catalog only."""
    asked = {"refuses_repetitions": refuses_repetitions}
    rows = connection.execute(statement("missing_for_increments"), asked).mappings()
    return tuple(Lack(Need(row["kind"]), row["lacks"], row["statement"], row["is_concurrent"]) for row in rows)


def is_left_alone(connection: Connection) -> bool:
    """Whether a person asked to leave the log as it is, now or in an earlier `recon init`."""
    return connection.execute(_IS_LEFT_ALONE).scalar_one()


def remember(connection: Connection, *, left_alone: bool) -> None:
    """Store the answer for later calls of `recon init` without an option.

    Raises:
        DBAPIError: The answer changes, and our role does not own schema `recon`.
    """
    if left_alone != is_left_alone(connection):
        connection.execute(_LEAVE_ALONE if left_alone else _ALLOW_TO_ALTER)


def has_foreign_ids(connection: Connection) -> bool:
    """Whether events carry transaction ids that this server has not reached, as after a restore on another server."""
    return connection.execute(statement("foreign_transaction_ids")).scalar_one()


def owner_of_log(connection: Connection) -> LogOwner:
    """Who may alter the log, and whether that role can make the triggers."""
    return LogOwner(**connection.execute(statement("owner_of_log")).mappings().one())


def let_owner_use_schema(connection: Connection, log: LogOwner) -> None:
    """Run the missing grant."""
    if log.missing_grant is not None:
        connection.exec_driver_sql(log.missing_grant, execution_options=_AS_IT_STANDS)


def install(
    connection: Connection, *, refuses_repetitions: bool, on_step: Callable[[str], None] = lambda _: None
) -> tuple[Lack, ...]:
    """Add what is lacking; running it again changes nothing.

    Args:
        connection: Not in a transaction.
        refuses_repetitions: The log itself refuses a second event of one identity.
        on_step: Called with each statement before it runs.

    Returns:
        What is still lacking, because the operator decides it or there is no fix.

    Raises:
        DBAPIError: Our role may not alter the log, or a lock was not free in `LOCK_ATTEMPTS` attempts.
        ReconError: A statement ran and did not help.
    """
    return _Installation(connection, refuses_repetitions, on_step, Counter()).run()


@dataclass(frozen=True)
class _Installation:
    connection: Connection
    refuses_repetitions: bool
    on_step: Callable[[str], None]
    done: Counter[str]

    def run(self) -> tuple[Lack, ...]:
        while True:
            attempts = Retrying(
                retry=retry_if_exception(is_lock_conflict),
                stop=stop_after_attempt(LOCK_ATTEMPTS),
                wait=wait_random_exponential(multiplier=0.1, max=2),
                reraise=True,
            )
            for attempt in attempts:
                with attempt:
                    number = attempt.retry_state.attempt_number
                    left, step = self._next(LONG_LOG_LOCK_TIMEOUT_MS if number % 5 == 0 else LOG_LOCK_TIMEOUT_MS)
                    if step is None:
                        return left
                    if step.is_concurrent:
                        self._run_concurrently(step.statement or "")

    def _next(self, lock_timeout_ms: int) -> tuple[tuple[Lack, ...], Lack | None]:
        """What is lacking, and the next step, which this function does if it can run in a transaction."""
        with begin(self.connection, lock_timeout_ms=lock_timeout_ms, idle_timeout_ms=IDLE_TIMEOUT_MS):
            # One of two preparations does the step, and the other sees it done.
            self.connection.execute(LOCK_MIGRATIONS)
            left = lacking(self.connection, refuses_repetitions=self.refuses_repetitions)
            ours = [lack for lack in left if lack.statement is not None and lack.kind is not Need.ADVISED]
            # A permanent obstacle, or an index that another session builds, which would delay every other step.
            is_stuck = any(lack.statement is None and lack.kind is Need.REQUIRED for lack in left)
            if is_stuck or not ours:
                return left, None
            step, sql = ours[0], ours[0].statement or ""
            if self.done[sql] >= ATTEMPTS_OF_ONE_STEP:
                raise ReconError(
                    f"{step.lacks}, and this was run {ATTEMPTS_OF_ONE_STEP} times and did not help: {sql};",
                    changed="What was done before stays, and runs read the whole log.",
                    fix="Run that statement by hand, look at what it says, and run recon init again.",
                )
            if sql not in self.done:
                self.done[sql] = 0
                self.on_step(sql)
            if not step.is_concurrent:
                self.connection.exec_driver_sql(sql, execution_options=_AS_IT_STANDS)
                self.done[sql] += 1
            return left, step

    def _run_concurrently(self, sql: str) -> None:
        self.done[sql] += 1
        self.connection.execution_options(isolation_level="AUTOCOMMIT")
        with self.connection.begin(), _patiently(self.connection):
            self.connection.exec_driver_sql(sql, execution_options=_AS_IT_STANDS)


@contextmanager
def _patiently(connection: Connection) -> Generator[None]:
    """Without time limits: a concurrent build waits for open transactions, and blocks no session."""
    connection.execute(_LIFT_TIME_LIMITS)
    try:
        yield
    finally:
        if not connection.invalidated and not connection.closed:
            connection.execute(_RESET_TIME_LIMITS)
