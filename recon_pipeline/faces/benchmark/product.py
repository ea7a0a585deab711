"""The product's side of the benchmark: the database's work in each step, called as the assets call it.

Runs in a process of its own, so that the peak of its memory is the product's. Every measurement begins with a
connection of its own, as a run does.
"""

import resource
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
from sqlalchemy import event

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.quotas import parse_paid_statuses, parse_quotas
from recon_pipeline.core.scope import Extent, parse_scope
from recon_pipeline.faces.benchmark.statements import statement
from recon_pipeline.settings import DEFAULT_PAID_STATUSES, DEFAULT_QUOTAS, DEFAULT_SCOPE
from recon_pipeline.store.counters import compare, repair, verify
from recon_pipeline.store.log.decision import decision
from recon_pipeline.store.postgres.database import BillingDatabase, begin
from recon_pipeline.store.postgres.statements import name_of
from recon_pipeline.store.records import run_metrics, runs, schedule
from recon_pipeline.store.sums import horizons, increments, modes, odd_sums, quality
from recon_pipeline.store.sums.modes import Mode
from recon_pipeline.store.sums.run import Reconciliation

FIRST_MONTH = BillingMonth(2026, 1)
LAST_MONTH = BillingMonth(2026, 6)


@dataclass(frozen=True)
class Timing:
    """One measured piece of work.

    Attributes:
        count: What it is about: events measured, keys stored, drifted, repaired or different.
        seconds: Wall time of a step; of a tick, the time that the server was at work, as it counts that itself.
        longest_lock_seconds: Of a repair, the longest for which counters were locked; 0 for everything else.
        process_seconds: Wall time of a tick: the server's and the process's work, and all that passes between them.
    """

    count: int
    seconds: float
    longest_lock_seconds: float = 0.0
    process_seconds: float = 0.0


@dataclass(frozen=True)
class Product:
    """The product's steps over all six months.

    Attributes:
        url: The scratch database.
    """

    url: str

    def detect(self) -> Timing:
        """The exact comparison, from the log."""
        return self._timed(lambda database: _compare(database, _new_run(), Mode.FULL))

    def verify(self) -> Timing:
        """The last check of a run, on a new snapshot; the count is of keys that differ."""
        return self._timed(lambda database: _verify(database, _new_run(), Mode.FULL))

    def full_tick(self) -> Timing:
        """All steps of one run in full mode; the count is of keys that differ at its end."""
        return self._timed(lambda database: _tick(database, Mode.FULL)[1])

    def advance(self) -> Timing:
        """Add to the aggregates what is new, or build them; the count is of events absorbed."""
        return self._timed(_advance)

    def tick(self) -> Timing:
        """All steps of one run in incremental mode; the count is of counters repaired."""
        database = BillingDatabase(self.url, keeps_connection=True)
        at_work, began = _server_seconds(database), time.perf_counter()
        repaired, mismatches = _tick(database, Mode.INCREMENTAL)
        process_seconds = time.perf_counter() - began
        at_work = _server_seconds(database) - at_work
        database.close()
        if mismatches:
            raise AssertionError(f"{mismatches} counters differ after a tick")
        return Timing(repaired, at_work, process_seconds=process_seconds)

    def repair(self) -> Timing:
        """Repair of what a comparison found, which is not part of the time."""
        database, run = BillingDatabase(self.url), _new_run()
        _advance(database, run)
        drift_count = _compare(database, run, Mode.INCREMENTAL)
        locks = _LockClock(database)
        began = time.perf_counter()
        with database.connection() as connection:
            outcome = repair.repair(connection, run, drift_count=drift_count)
        return Timing(outcome.repaired, time.perf_counter() - began, locks.longest_seconds)

    def _timed(self, work: Callable[[BillingDatabase], int]) -> Timing:
        began = time.perf_counter()
        count = work(BillingDatabase(self.url))
        return Timing(count, time.perf_counter() - began)


class _LockClock:
    """How long the transactions of a repair have had counters locked: from the statement that locks them to its end."""

    _LOCKING = ("create_missing_counters", "lock_free_counters", "lock_counter")

    def __init__(self, database: BillingDatabase) -> None:
        self.longest_seconds = 0.0
        self._since: float | None = None
        event.listen(database.engine, "before_cursor_execute", self._begin)
        event.listen(database.engine, "commit", self._end)
        event.listen(database.engine, "rollback", self._end)

    def _begin(self, _connection: object, _cursor: object, sent: str, *_: object) -> None:
        if self._since is None and name_of(sent) in self._LOCKING:
            self._since = time.perf_counter()

    def _end(self, _connection: object) -> None:
        """The server is about to be asked to end the transaction."""
        if self._since is not None:
            self.longest_seconds = max(self.longest_seconds, time.perf_counter() - self._since)
            self._since = None


def peak_memory_bytes(process_id: int | None = None) -> int:
    """The most memory that this process has held, or another one; where Linux does not report that, what it holds now.

    Raises:
        psutil.Error: The other process has ended.
    """
    status = Path(f"/proc/{process_id or 'self'}/status")
    if status.exists():  # on Linux getrusage starts from the process that this one was forked from
        found = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(found[0].split()[1]) * 1024 if found else 0  # what has ended and was not waited for has none
    if process_id is not None:
        return psutil.Process(process_id).memory_info().rss
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reconciliation(run_id: str) -> Reconciliation:
    """A run over all six months, with the settings of an installation that set none."""
    return Reconciliation(
        run_id=run_id,
        extent=Extent(parse_scope(DEFAULT_SCOPE), FIRST_MONTH, LAST_MONTH),
        settle_seconds=0,
        quotas=parse_quotas(DEFAULT_QUOTAS),
        paid_statuses=parse_paid_statuses(DEFAULT_PAID_STATUSES),
    )


def _server_seconds(database: BillingDatabase) -> float:
    """How long the server has been at work for all sessions of this database, what this one did until now included."""
    with database.transaction() as connection:
        connection.execute(statement("server_time"))  # what it flushes, the next one reads
    with database.transaction() as connection:
        return connection.execute(statement("server_time")).one().active_time / 1_000


def _new_run() -> Reconciliation:
    return reconciliation(f"benchmark-{uuid.uuid4()}")


def _tick(database: BillingDatabase, mode: Mode) -> tuple[int, int]:
    """One run from the horizon to the verified repair; returns how many keys it repaired, and how many differ."""
    run = _new_run()
    _measure_events(database, run, mode)
    if mode is Mode.INCREMENTAL:
        _advance(database, run)
    drift_count = _compare(database, run, mode)
    with database.connection() as connection:
        outcome = repair.repair(connection, run, drift_count=drift_count)
    with database.transaction() as connection:
        run_metrics.note_repairs(connection, run.run_id, outcome)
    return outcome.repaired, _verify(database, run, mode)


def _measure_events(database: BillingDatabase, run: Reconciliation, mode: Mode) -> None:
    with database.connection() as connection, decision(connection, "REPEATABLE READ") as tables:
        choice = modes.choose(connection, tables, is_asked_for_full=mode is Mode.FULL)
        since = runs.start(connection, run, mode=choice.mode, reason=choice.reason).previous_started_at
        known = quality.known(connection, run, tables) if choice.mode is Mode.INCREMENTAL else None
        measured = quality.measure(connection, run, tables, known, since=since)
        run_metrics.note_events(connection, run.run_id, measured.quality)
        horizons.oldest_transaction(connection)


def _advance(database: BillingDatabase, run: Reconciliation | None = None) -> int:
    run = run or _new_run()
    with database.connection() as connection, decision(connection) as tables:
        advance = increments.advance(connection, run, tables)
        odd_sums.oversized(connection, run, tables, months_tell=True)
        return advance.absorbed_count


def _compare(database: BillingDatabase, run: Reconciliation, mode: Mode) -> int:
    with database.connection() as connection:
        with decision(connection):
            runs.start(connection, run, mode=mode)
        with decision(connection, "REPEATABLE READ") as tables:
            compared = compare.compare(connection, run, tables, mode=mode)
            found = compare.summarize(connection, run.run_id, counters_scanned=compared.counters_scanned)
            run_metrics.note_drift(connection, run.run_id, found.summary)
            run_metrics.note_compared(connection, run.run_id, compared)
            return found.summary.drift_count


def _verify(database: BillingDatabase, run: Reconciliation, mode: Mode) -> int:
    with database.connection() as connection:
        with decision(connection):
            below = run_metrics.compared_below(connection, run.run_id)
        with decision(connection, "REPEATABLE READ") as tables:
            answer = verify.verify(connection, run, tables, mode=mode, compared_below=below)
        with begin(connection):
            schedule.note_verified(connection, run, tables, answer)
            runs.finish(connection, run.run_id, "clean", mismatch_count=answer.mismatch_count)
    return answer.mismatch_count
