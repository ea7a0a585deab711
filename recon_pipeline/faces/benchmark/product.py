"""What the benchmark measures of the product: the database's work of each step, called as the assets call it.

Runs in a process of its own, so that the peak of its memory is the product's.
"""

import resource
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.quotas import parse_quotas
from recon_pipeline.core.scope import Extent, parse_scope
from recon_pipeline.settings import DEFAULT_QUOTAS, DEFAULT_SCOPE
from recon_pipeline.store import aggregates, drift, events, repair, runs
from recon_pipeline.store.billing_tables import require_trustworthy
from recon_pipeline.store.comparison import Reconciliation
from recon_pipeline.store.database import BillingDatabase

FIRST_MONTH = BillingMonth(2026, 1)
LAST_MONTH = BillingMonth(2026, 6)


@dataclass(frozen=True)
class Timing:
    """One measured piece of work.

    Attributes:
        count: What it is about: events measured, keys stored, drifted, repaired or different.
        seconds: Wall time, the connection included.
        longest_chunk_seconds: Of a repair; 0 for everything else.
    """

    count: int
    seconds: float
    longest_chunk_seconds: float = 0.0


@dataclass(frozen=True)
class Product:
    """The product's steps over all six months.

    Attributes:
        url: The scratch database.
    """

    url: str

    def measure_events(self) -> Timing:
        """The quality of the log."""
        return _timed(lambda: self._measure_events(_new_run()))

    def store_aggregates(self) -> Timing:
        """The stored event sums, from the log; the count is of keys that changed."""
        return _timed(lambda: self._store_aggregates(_new_run()))

    def detect(self) -> Timing:
        """The exact comparison, from scratch."""
        return _timed(lambda: self._compare(_new_run()))

    def verify(self) -> Timing:
        """The promise, asked afresh."""
        return _timed(lambda: self._verify(_new_run()))

    def tick(self) -> Timing:
        """All steps of one run; the count is of keys that differ at its end."""
        return _timed(lambda: self._tick(_new_run()))

    def repair(self) -> Timing:
        """Repair of what a comparison found, which is not part of the time."""
        run = _new_run()
        drift_count = self._compare(run)
        database = BillingDatabase(self.url)
        chunk_ends = [time.perf_counter()]
        with database.connection() as connection:
            with database.transaction() as looking:
                tables = require_trustworthy(looking)
            outcome = repair.repair(
                connection,
                run,
                tables,
                drift_count=drift_count,
                on_progress=lambda _: chunk_ends.append(time.perf_counter()),
            )
        seconds = time.perf_counter() - chunk_ends[0]
        chunks = [end - start for start, end in pairwise(chunk_ends)]
        return Timing(outcome.repaired, seconds, max(chunks, default=0.0))

    def _tick(self, run: Reconciliation) -> int:
        self._measure_events(run)
        self._store_aggregates(run)
        drift_count = self._compare(run)
        database = BillingDatabase(self.url)
        with database.transaction() as connection:
            tables = require_trustworthy(connection)
        with database.connection() as connection:
            repair.repair(connection, run, tables, drift_count=drift_count)
        return self._verify(run)

    def _measure_events(self, run: Reconciliation) -> int:
        with BillingDatabase(self.url).transaction("REPEATABLE READ") as connection:
            tables = require_trustworthy(connection)
            since = runs.start(connection, run, mode="benchmark").previous_started_at
            return events.measure(connection, run, tables, since=since).events_scanned

    def _store_aggregates(self, run: Reconciliation) -> int:
        with BillingDatabase(self.url).transaction("REPEATABLE READ") as connection:
            tables = require_trustworthy(connection)
            totals = aggregates.store_from_log(connection, run, tables)
            aggregates.oversized(connection, run, tables)
            return totals.keys_changed

    def _compare(self, run: Reconciliation) -> int:
        with BillingDatabase(self.url).transaction("REPEATABLE READ") as connection:
            tables = require_trustworthy(connection)
            counters_scanned = drift.compare(connection, run, tables)
            return drift.summarize(connection, run.run_id, counters_scanned=counters_scanned).summary.drift_count

    def _verify(self, run: Reconciliation) -> int:
        with BillingDatabase(self.url).transaction("REPEATABLE READ") as connection:
            return drift.verify(connection, run, require_trustworthy(connection)).mismatch_count


def peak_memory_bytes() -> int:
    """The most memory that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says of Linux starts from the process that this one was forked from
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reconciliation(run_id: str) -> Reconciliation:
    """A run over all six months, with the settings of an installation that set none."""
    return Reconciliation(
        run_id=run_id,
        extent=Extent(parse_scope(DEFAULT_SCOPE), FIRST_MONTH, LAST_MONTH),
        settle_seconds=0,
        quotas=parse_quotas(DEFAULT_QUOTAS),
    )


def _new_run() -> Reconciliation:
    return reconciliation(f"benchmark-{uuid.uuid4()}")


def _timed(work: Callable[[], int]) -> Timing:
    began = time.perf_counter()
    count = work()
    return Timing(count, time.perf_counter() - began)
