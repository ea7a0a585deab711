"""Sets drifted counters to what the log says, while the application goes on counting.

Invariant (rules 1 and 2): lock the counter row, then recompute the event sum in a new statement, then write. A sum from
before the lock would lose the increments in between; so would one UPDATE ... FROM (SELECT sum ...), whose subquery
is not run again when a row turns out to have changed (PostgreSQL manual, 13.2.1). Keys are locked in one order, in
chunks that are short transactions; while a chunk holds locks it waits for none. A key that somebody else holds is
tried once more by itself and then deferred; a key that Postgres refuses is failed by itself.

Knows nothing of why a key drifted: what to write is derived under the lock. Where the locked row is the very version
that the comparison saw, no increment has come since, and the comparison's sum is the one that belongs to it: such keys,
nearly all where many drifted, go first, by one statement per chunk that sums nothing. That a key was repaired is
written once, in the ledger.
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from recon_pipeline.store import control, horizons
from recon_pipeline.store.basis import Sums
from recon_pipeline.store.billing_tables import BillingTables
from recon_pipeline.store.comparison import Reconciliation
from recon_pipeline.store.control import Pause, RepairsPausedError
from recon_pipeline.store.database import LOCK_TIMEOUT_MS, begin
from recon_pipeline.store.failures import LOCK_NOT_HAD, first_line, is_connection_lost, sqlstate
from recon_pipeline.store.statements import statement

CHUNK_KEYS = 2_000
"""Most keys in one transaction."""

CHUNK_SECONDS = 0.2
"""The time that a chunk aims at: nobody waits for a counter much longer than this because of a repair."""

CHUNK_LOCK_TIMEOUT_MS = 100
"""Far below Postgres's deadlock_timeout of a second, so that the application is never the one that is cancelled."""

CHUNK_STATEMENT_TIMEOUT_MS = 10_000
"""A customer with so many events that a sum takes longer is failed by itself and said so."""

MANY_KEYS = 1_000
"""From so many drifted keys on, the planner is told of them: what is no matter for a few takes hours for many."""

BUSY_KEYS_SECONDS = 30.0
"""The longest that a run waits in all for counters that somebody holds; the rest is deferred."""


@dataclass(frozen=True)
class RepairOutcome:
    """What became of the drifted keys of a run; every key is in exactly one of the first six.

    Attributes:
        repaired: Counter set (or created), ledger row written.
        in_sync: No longer drifted when its lock was had.
        deferred: Held by somebody else; the next run tries again.
        failed: Refused by Postgres, each with its error.
        held: Left alone because somebody holds the customer.
        untouched: Not reached.
        over_quota_transitions: Repairs that reached or passed the limit from below.
        under_quota_transitions: Repairs that fell below the limit.
        pause: What kept the run from touching the rest, if it was that.
    """

    repaired: int
    in_sync: int
    deferred: int
    failed: int
    held: int
    untouched: int
    over_quota_transitions: int
    under_quota_transitions: int
    pause: Pause | None = None

    @property
    def paused_reason(self) -> str | None:
        """Who paused and why, for the record of the run."""
        return None if self.pause is None else str(self.pause)


def repair(
    connection: Connection,
    run: Reconciliation,
    tables: BillingTables,
    *,
    drift_count: int,
    sums: Sums,
    while_paused: bool = False,
    on_progress: Callable[[int], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> RepairOutcome:
    """Repair what the run's comparison found.

    Args:
        connection: Not in a transaction; chunks are transactions of their own on it.
        run: Whose drift to repair.
        tables: How the tables are shaped.
        drift_count: How many keys the comparison found; they are numbered from 1.
        sums: Whether the log can, and may, be read in increments.
        while_paused: Repair although somebody has paused repairs.
        on_progress: Told how many keys are done so far, after each chunk.
        clock: In seconds, for the size of chunks and for waits.

    Raises:
        DBAPIError: The connection was lost. Whole chunks are done, the rest is untouched.
    """
    horizon = _lowest_horizon(connection, run, tables) if sums is Sums.INCREMENTS else None
    repairer = _Repairer(connection, run, tables, horizon, while_paused)
    pause = None
    try:
        _repair(connection, repairer, drift_count, on_progress, clock)
    except RepairsPausedError as paused:
        pause = paused.pause
    return replace(summarize(connection, run.run_id), pause=pause)


def _repair(
    connection: Connection,
    repairer: "_Repairer",
    drift_count: int,
    on_progress: Callable[[int], None],
    clock: Callable[[], float],
) -> None:
    """Chunk after chunk, then what somebody held."""
    busy: list[int] = []
    chunk_keys = CHUNK_KEYS // 4
    analyzed = drift_count < MANY_KEYS
    first = 1
    while first <= drift_count:
        chunk = range(first, min(first + chunk_keys, drift_count + 1))
        began = clock()
        left = repairer.unchanged_keys(chunk)
        if left and not analyzed:
            with begin(connection):
                connection.execute(statement("analyze_drift"))
            analyzed = True
        busy += repairer.free_keys(left)
        first += len(chunk)
        on_progress(first - 1)
        pace = CHUNK_SECONDS / max(clock() - began, 0.001)
        chunk_keys = max(1, min(CHUNK_KEYS, int(chunk_keys * min(pace, 2))))
    give_up_at = clock() + BUSY_KEYS_SECONDS
    for ordinal in busy:
        repairer.busy_key(ordinal, wait=clock() < give_up_at)


def summarize(connection: Connection, run_id: str) -> RepairOutcome:
    """Read back what became of a run's drifted keys."""
    with begin(connection):
        row = connection.execute(statement("summarize_repairs"), {"run_id": run_id}).mappings().one()
        return RepairOutcome(**row)


def repair_parts(tables: BillingTables, *, from_log: bool) -> dict[str, str]:
    """The files that stand for the placeholders of `repair_locked_counters`."""
    if from_log:
        return tables.parts | {"asked_of_aggregates": "no_keys_asked", "locked_sums": "locked_sums_from_log"}
    return tables.parts | {
        "asked_of_aggregates": "asked_of_aggregates",
        "locked_sums": "locked_sums_from_aggregates",
    }


def _lowest_horizon(connection: Connection, run: Reconciliation, tables: BillingTables) -> int | None:
    """A horizon that no later one is below; None where aggregates are not there or not of this log."""
    with begin(connection, "REPEATABLE READ"):
        months = horizons.aggregated_months(connection, run, tables)
    return None if months is None else min(of_usage[0].horizon for of_usage in months.values())


@dataclass(frozen=True)
class _Repairer:
    connection: Connection
    run: Reconciliation
    tables: BillingTables
    horizon: int | None
    while_paused: bool

    @contextmanager
    def chunk(self, ordinals: Sequence[int], *, lock_timeout_ms: int) -> Generator[set[int]]:
        """The transaction of a chunk; gives the keys of it that may be repaired.

        Raises:
            RepairsPausedError: None may.
        """
        with begin(self.connection, lock_timeout_ms=control.CHUNKS_END_MS):
            held = control.enter_chunk(
                self.connection,
                self.run.run_id,
                ordinals,
                while_paused=self.while_paused,
                lock_timeout_ms=lock_timeout_ms,
                statement_timeout_ms=CHUNK_STATEMENT_TIMEOUT_MS,
            )
            yield set(ordinals) - held

    def unchanged_keys(self, chunk: range) -> list[int]:
        """Repair the keys of a chunk whose counters are as the comparison saw them; returns those to look at again.

        A transaction of its own: no counter that is repaired here stays locked while another one's events are summed.
        """
        extent = {"run_id": self.run.run_id, "first": chunk[0], "last": chunk[-1]}
        try:
            with self.chunk(chunk, lock_timeout_ms=CHUNK_LOCK_TIMEOUT_MS):
                repaired = self._repair_unchanged(extent)
        except DBAPIError as error:
            if is_connection_lost(error):
                raise
            repaired = 0  # a key of this chunk is refused; which one, and why, is found out key by key
        if repaired == len(chunk):
            return []
        with begin(self.connection):
            return list(self.connection.execute(statement("unrepaired_keys"), extent).scalars())

    def free_keys(self, chunk: Sequence[int]) -> list[int]:
        """Repair the keys of a chunk that nobody holds; returns those that somebody does."""
        if not chunk:
            return []
        try:
            with self.chunk(chunk, lock_timeout_ms=CHUNK_LOCK_TIMEOUT_MS) as free:
                locked = self._lock_and_repair(sorted(free), "lock_free_counters", create=["missing"])
                return sorted(free - locked)
        except DBAPIError as error:
            if is_connection_lost(error):
                raise
            if len(chunk) > 1:
                middle = len(chunk) // 2
                return self.free_keys(chunk[:middle]) + self.free_keys(chunk[middle:])
            if sqlstate(error) in LOCK_NOT_HAD:
                return list(chunk)
            self._mark(chunk[0], error)
            return []

    def busy_key(self, ordinal: int, *, wait: bool) -> None:
        """Repair one key, waiting for its lock while holding none; defer it if the lock is not had."""
        try:
            with self.chunk([ordinal], lock_timeout_ms=LOCK_TIMEOUT_MS if wait else 1) as free:
                # A second time for a counter that was deleted while we waited for it: it is then given a new row.
                if free and not any(
                    self._lock_and_repair([ordinal], "lock_counter", create=["missing", "under", "over"])
                    for _ in range(2)
                ):
                    self._execute("mark_uncountable", [ordinal])
        except DBAPIError as error:
            if is_connection_lost(error):
                raise
            self._mark(ordinal, error)

    def _repair_unchanged(self, extent: Mapping[str, object]) -> int:
        """Lock and repair what is unchanged; returns how many."""
        self.connection.execute(statement("look_up_by_index"))
        return self.connection.execute(statement("repair_unchanged_counters"), extent).rowcount

    def _lock_and_repair(self, ordinals: Sequence[int], lock: str, *, create: list[str]) -> set[int]:
        """Give a row to keys of the kinds to create, lock what there is of all of them, repair what is locked."""
        self._execute("create_missing_counters", ordinals, kinds=create)
        locked = self.connection.execute(statement(lock), {"run_id": self.run.run_id, "ordinals": list(ordinals)}).all()
        had = [row.ordinal for row in locked]
        if had:
            self._execute("repair_locked_counters", had, counter_ids=[row.counter_id for row in locked])
        return set(had)

    def _mark(self, ordinal: int, error: DBAPIError) -> None:
        """Record in a transaction of its own why one key was not repaired."""
        outcome = "deferred" if sqlstate(error) in LOCK_NOT_HAD else "failed"
        with begin(self.connection):
            self._execute("mark_drift", [ordinal], outcome=outcome, error=first_line(error))

    def _execute(self, name: str, ordinals: Sequence[int], **more: object) -> None:
        parts = repair_parts(self.tables, from_log=self.horizon is None) if name == "repair_locked_counters" else {}
        parameters = {
            "run_id": self.run.run_id,
            "ordinals": list(ordinals),
            "settle_seconds": self.run.settle_seconds,
            "horizon": None if self.horizon is None else str(self.horizon),
            **self.tables.parameters,
            **more,
        }
        self.connection.execute(statement(name, **parts), parameters)
