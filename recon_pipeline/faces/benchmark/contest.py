"""The contestants on a log of one size, and their times: hand-written SQL and the product take turns."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from sqlalchemy import TextClause

from recon_pipeline.faces.benchmark.product import LAST_MONTH, Product, Timing
from recon_pipeline.faces.benchmark.scratch import execute_outside_transaction
from recon_pipeline.faces.benchmark.statements import statement
from recon_pipeline.store.postgres.database import WORK_MEM, BillingDatabase
from recon_pipeline.store.postgres.statements import labelled

_DRIFT_EVERY_COUNTER = labelled(
    "drift_every_counter", "update billing_usage_counters set usage_count = usage_count + 1"
)
_SET_WORK_MEM = labelled("set_work_mem", "select set_config('work_mem', :work_mem, true)")

GROUP_BY = "GROUP BY alone"
GROUP_BY_TUNED = f"GROUP BY alone, work_mem {WORK_MEM}"
FULL_JOIN = "full join by hand"
FULL_JOIN_TUNED = f"full join by hand, work_mem {WORK_MEM}"
UPDATE = "unsafe UPDATE … FROM by hand"
UPDATE_TUNED = f"unsafe UPDATE … FROM by hand, work_mem {WORK_MEM}"
DETECT = "detection from the log"
VERIFY = "verification from the log"
FULL_TICK = "a whole tick in full mode, nothing drifted"
BUILD = "event sums built from scratch"
BURST = "a burst of new events absorbed"
TICK = "a tick: 1,000 new events, 100 drifted keys"
TICK_PROCESS = "a tick, as its process sees it"
IDLE_TICK = "an idle tick"
REPAIR = "safe repair of every counter, with ledger"

TICK_EVENTS, TICK_DRIFTED = 1_000, 100
BURST_KEYS = 50_000


class Contest:
    """The contestants and their times so far, in seconds."""

    def __init__(
        self, database: BillingDatabase, product: Product, pool: ProcessPoolExecutor, console: Console, seed: int
    ) -> None:
        self.database = database
        self.contestant = product
        self.pool = pool
        self.console = console
        self.seed = seed
        self.times: defaultdict[str, list[float]] = defaultdict(list)
        self.repairs: list[Timing] = []
        self.burst_events = 0

    def read(self) -> None:
        """One turn of everything that reads the whole log."""
        self.by_hand(GROUP_BY, "group_by")
        self.by_hand(GROUP_BY_TUNED, "group_by", work_mem=WORK_MEM)
        self.by_hand(FULL_JOIN, "full_join")
        self.by_hand(FULL_JOIN_TUNED, "full_join", work_mem=WORK_MEM)
        self.product(DETECT, self.contestant.detect)
        self.product(VERIFY, self.contestant.verify)
        execute_outside_transaction(
            self.database,
            "truncate recon.usage_aggregate, recon.usage_month; update recon.event_log set horizon = null",
        )
        self.product(BUILD, self.contestant.advance)
        execute_outside_transaction(self.database, "vacuum analyze recon.usage_aggregate")

    def tick(self) -> None:
        """One turn of ticks beside the full join: some new events and drift, then nothing new."""
        self.pool.submit(self.contestant.tick).result()  # processes earlier changes, so that the next tick does not
        self.by_hand(FULL_JOIN, "full_join")
        self.by_hand(FULL_JOIN_TUNED, "full_join", work_mem=WORK_MEM)
        self.seed += 1
        self._prepare(
            statement("record"), keys=TICK_EVENTS, seed=self.seed, last_start=LAST_MONTH.start, name="recording events"
        )
        self._prepare(statement("drift_some"), keys=TICK_DRIFTED, seed=self.seed, name="making counters drift")
        seen = self.product(TICK, self.contestant.tick).process_seconds
        self.times[TICK_PROCESS].append(seen)
        self.pool.submit(self.contestant.tick).result()  # the repairs themselves were changes, which this one verifies
        self.product(IDLE_TICK, self.contestant.tick)

    def burst(self, keys: int) -> None:
        """One turn of a burst: ten new events for each of so many keys."""
        self.seed += 1
        self._prepare(statement("burst"), keys=keys, seed=self.seed, name="writing a burst")
        self.burst_events = self.product(BURST, self.contestant.advance).count

    def write(self) -> None:
        """One turn of everything that repairs: each finds every counter drifted."""
        for name, work_mem in ((UPDATE, None), (UPDATE_TUNED, WORK_MEM)):
            self._drift()
            self.by_hand(name, "unsafe_update", work_mem=work_mem)
        self._drift()
        self.repairs.append(self.product(REPAIR, self.contestant.repair))

    def by_hand(self, name: str, statement_name: str, *, work_mem: str | None = None) -> None:
        """Run and time one hand-written statement."""
        with self._turn(name):
            began = time.perf_counter()
            with self.database.connection() as connection, connection.begin():
                if work_mem is not None:
                    connection.execute(_SET_WORK_MEM, {"work_mem": work_mem})
                connection.execute(statement(statement_name))
            # The commit counts: a repair is not done before it.
            self.times[name].append(time.perf_counter() - began)

    def product(self, name: str, work: Callable[[], Timing]) -> Timing:
        """Run one step of the product in its process; it times itself there."""
        with self._turn(name):
            timing = self.pool.submit(work).result()
        self.times[name].append(timing.seconds)
        return timing

    def _drift(self) -> None:
        self._prepare(_DRIFT_EVERY_COUNTER, name="making every counter drift")
        # Every contestant finds the table as vacuum leaves it, not as the one before it did.
        execute_outside_transaction(self.database, "vacuum analyze billing_usage_counters")

    def _prepare(self, prepares: TextClause, *, name: str, **parameters: Any) -> None:
        with self._turn(name), self.database.connection() as connection, connection.begin():
            connection.execute(prepares, parameters)

    @contextmanager
    def _turn(self, name: str) -> Iterator[None]:
        with self.console.status(f"{name} …"):
            yield
