"""Adds what the log lacks for the incremental mode: the column `ingest_xid`, its default, an index and triggers.

Invariant: a live log is never rewritten, and no session waits for long. The column is added without a default and gets
it afterwards, so only new rows are filled. The index is built concurrently. Each lock is requested briefly, again and
again, also after this process stood still and the server ended its session. Before each step, the catalog shows what is
left to do, so a preparation that was killed is continued, and two at once do the work once.
"""

import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from recon_pipeline.core.errors import ReconError
from recon_pipeline.store.log.ingest_xid import AS_IT_STANDS, Lack, Need, lacking
from recon_pipeline.store.postgres.database import begin
from recon_pipeline.store.postgres.errors import is_lock_conflict, was_ended_while_idle
from recon_pipeline.store.postgres.statements import labelled

# Lets one preparation of a database in at a time.
# Invariant: ends with the transaction; the number is ours.
LOCK_MIGRATIONS = labelled("lock_migrations", "select pg_advisory_xact_lock(720271125)")
# Removes the limits of time, for what is built concurrently.
_LIFT_TIME_LIMITS = labelled("lift_time_limits", "set lock_timeout = 0; set statement_timeout = 0")
# Sets again the limits of time that the session began with.
_RESET_TIME_LIMITS = labelled("reset_time_limits", "reset lock_timeout; reset statement_timeout")

LOG_LOCK_TIMEOUT_MS = 500
"""How long a step may wait for its lock: every later session waits behind it."""

LONG_LOG_LOCK_TIMEOUT_MS = 1_500
"""Every fifth attempt waits longer than `deadlock_timeout` (1 s), when Postgres cancels an autovacuum in the way."""

IDLE_TIMEOUT_MS = 1_750
"""A step that has its lock and whose process is frozen or cut off lets it go after this."""

LOCK_ATTEMPTS = 20

ATTEMPTS_OF_ONE_STEP = 5
"""A step that is lacking again after so many times does not help, for example as its index's name is taken."""


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
        DBAPIError: Our role may not alter the log, or a step was not done in `LOCK_ATTEMPTS` attempts.
        ReconError: A statement ran and did not help.
    """
    return _Installation(connection, refuses_repetitions, on_step, Counter()).run()


@dataclass
class _Installation:
    connection: Connection
    refuses_repetitions: bool
    on_step: Callable[[str], None]
    done: Counter[str]
    step_began: float = 0.0

    def run(self) -> tuple[Lack, ...]:
        while True:
            attempts = Retrying(
                retry=retry_if_exception(self._may_go_on),
                stop=stop_after_attempt(LOCK_ATTEMPTS),
                wait=wait_random_exponential(multiplier=0.1, max=2),
                reraise=True,
            )
            for attempt in attempts:
                with attempt:
                    self.step_began = time.monotonic()
                    number = attempt.retry_state.attempt_number
                    left, step = self._next(LONG_LOG_LOCK_TIMEOUT_MS if number % 5 == 0 else LOG_LOCK_TIMEOUT_MS)
                    if step is None:
                        return left
                    if step.is_concurrent:
                        self._run_concurrently(step.statement or "")

    def _may_go_on(self, error: BaseException) -> bool:
        seconds = time.monotonic() - self.step_began
        return is_lock_conflict(error) or was_ended_while_idle(error, seconds=seconds, limit_ms=IDLE_TIMEOUT_MS)

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
                self.connection.exec_driver_sql(sql, execution_options=AS_IT_STANDS)
                self.done[sql] += 1
            return left, step

    def _run_concurrently(self, sql: str) -> None:
        self.done[sql] += 1
        self.connection.execution_options(isolation_level="AUTOCOMMIT")
        with self.connection.begin(), _patiently(self.connection):
            self.connection.exec_driver_sql(sql, execution_options=AS_IT_STANDS)


@contextmanager
def _patiently(connection: Connection) -> Generator[None]:
    """Without time limits: a concurrent build waits for open transactions, and blocks no session."""
    connection.execute(_LIFT_TIME_LIMITS)
    try:
        yield
    finally:
        if not connection.invalidated and not connection.closed:
            connection.execute(_RESET_TIME_LIMITS)
