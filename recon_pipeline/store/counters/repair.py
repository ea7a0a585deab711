"""Sets drifted counters to what the log says, while the application keeps counting.

Invariant: keys are locked in one order, in chunks that are short transactions. A key that another session has locked is
tried once more by itself and then deferred.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from sqlalchemy import Connection

from recon_pipeline.store.counters.chunks import Repairer
from recon_pipeline.store.counters.pause import Pause, RepairsPausedError
from recon_pipeline.store.log.decision import decision
from recon_pipeline.store.postgres.database import begin
from recon_pipeline.store.postgres.statements import statement
from recon_pipeline.store.sums import horizons
from recon_pipeline.store.sums.run import Reconciliation

CHUNK_KEYS = 2_000
"""Most keys in one transaction."""

CHUNK_SECONDS = 0.2
"""The time that a chunk aims at: no session waits for a counter much longer than this because of a repair."""


@dataclass(frozen=True)
class RepairOutcome:
    """The outcomes of a run's drifted keys; every key is in exactly one of the first seven.

    Attributes:
        repaired: Counter set (or created), ledger row written.
        in_sync: No longer drifted when it was locked.
        deferred: Locked by another session; the next run tries again.
        failed: Refused by Postgres, each with its error.
        held: Left alone because the customer is on hold.
        doubtful: Left alone because the log does not say for certain what the counter should be.
        untouched: Not reached.
        over_quota_transitions: Repairs that reached or passed the limit from below.
        under_quota_transitions: Repairs that fell below the limit.
        pause: The pause that kept the run from repairing the rest, if there was one.
        months: The same of each month, `YYYY-MM`, that has any such key.
    """

    repaired: int = 0
    in_sync: int = 0
    deferred: int = 0
    failed: int = 0
    held: int = 0
    doubtful: int = 0
    untouched: int = 0
    over_quota_transitions: int = 0
    under_quota_transitions: int = 0
    pause: Pause | None = None
    months: Mapping[str, "RepairOutcome"] = field(default_factory=lambda: dict[str, "RepairOutcome"]())

    def of_month(self, month: str) -> "RepairOutcome":
        """The outcomes of the keys of a month."""
        return self.months.get(month, RepairOutcome())

    @property
    def paused_reason(self) -> str | None:
        """Who paused and why, for the record of the run."""
        return None if self.pause is None else str(self.pause)


def repair(
    connection: Connection,
    run: Reconciliation,
    *,
    drift_count: int,
    while_paused: bool = False,
    on_progress: Callable[[int], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> RepairOutcome:
    """Repair what the run's comparison found.

    Args:
        connection: Not in a transaction; chunks are transactions of their own on it.
        run: Whose drift to repair.
        drift_count: How many keys the comparison found; they are numbered from 1.
        while_paused: Repair although a person has paused repairs.
        on_progress: Called after each chunk with the number of keys that are done.
        clock: In seconds, for the size of chunks and for waits.

    Raises:
        PutOffError: Another session, for example a migration, has a table locked. Whole chunks are done, the rest is
            untouched.
        DBAPIError: The connection was lost. Whole chunks are done, the rest is untouched.
    """
    with decision(connection) as tables:
        position = horizons.position(connection, tables, settle_seconds=run.settle_seconds)
    repairer = Repairer(connection, run, position.settled_below, position.is_known, while_paused, clock)
    pause = None
    try:
        _repair(repairer, drift_count, on_progress)
    except RepairsPausedError as paused:
        pause = paused.pause
    return replace(summarize(connection, run.run_id), pause=pause)


def _repair(repairer: Repairer, drift_count: int, on_progress: Callable[[int], None]) -> None:
    """Chunk after chunk, then what another session had locked."""
    busy: list[int] = []
    # Small at first, because it is not yet known how many events these keys have; each chunk is at most twice the last.
    chunk_keys = max(1, CHUNK_KEYS // 20)
    first = 1
    while first <= drift_count:
        chunk = range(first, min(first + chunk_keys, drift_count + 1))
        began = repairer.clock()
        busy += repairer.again_after_standstill(partial(repairer.free_keys, chunk))
        first += len(chunk)
        on_progress(first - 1)
        pace = CHUNK_SECONDS / max(repairer.clock() - began, 0.001)
        chunk_keys = max(1, min(CHUNK_KEYS, int(chunk_keys * min(pace, 2))))
    for ordinal in busy:
        repairer.again_after_standstill(partial(repairer.busy_key, ordinal))


def summarize(connection: Connection, run_id: str) -> RepairOutcome:
    """Read back the outcomes of a run's drifted keys."""
    with begin(connection):
        rows = connection.execute(statement("summarize_repairs"), {"run_id": run_id}).mappings().all()
    totals, months = Counter[str](), dict[str, RepairOutcome]()
    for row in rows:
        counts = {name: count for name, count in row.items() if name != "partition"}
        totals.update(counts)
        months[row["partition"]] = RepairOutcome(**counts)
    return replace(RepairOutcome(months=months), **totals)
