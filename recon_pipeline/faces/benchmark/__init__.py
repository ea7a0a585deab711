"""`recon benchmark`: how fast the product is, as ratios to what one would write by hand, measured in the same run.

    scratch ─▶ by hand ⇄ product (a process of its own) ─▶ report

The contestants take turns, so that whatever else the machine does disturbs them alike; ratios are of the best times.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

from rich.console import Console
from sqlalchemy import text

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.faces.benchmark.product import Product, Timing, peak_memory_bytes, reconciliation
from recon_pipeline.faces.benchmark.report import (
    DETECTION_BAR,
    MEMORY_BAR_MB,
    REPAIR_BAR,
    Bar,
    BenchmarkReport,
    Measurement,
    show,
)
from recon_pipeline.faces.benchmark.scratch import execute_outside_transaction, fill, scratch_database
from recon_pipeline.store.billing_tables import describe_server, require_trustworthy
from recon_pipeline.store.database import WORK_MEM, BillingDatabase
from recon_pipeline.store.statements import statement

DEFAULT_EVENTS = 5_000_000
DEFAULT_COUNTERS = 300_000
DEFAULT_ROUNDS = 3
_PLAN_LINES = 12

_GROUP_BY = f"GROUP BY alone, work_mem {WORK_MEM}"
_FULL_JOIN = f"full join by hand, work_mem {WORK_MEM}"
_FULL_JOIN_DEFAULT = "full join by hand, the server's settings"
_UPDATE = f"unsafe UPDATE … FROM by hand, work_mem {WORK_MEM}"
_UPDATE_DEFAULT = "unsafe UPDATE … FROM by hand, the server's settings"
_DETECT = "detection from scratch"
_REPAIR = "safe repair with ledger"

__all__ = ["DEFAULT_COUNTERS", "DEFAULT_EVENTS", "DEFAULT_ROUNDS", "BenchmarkReport", "run_benchmark"]


def run_benchmark(
    url: str | None, *, events: int, counters: int, console: Console, seed: int = 1, rounds: int = DEFAULT_ROUNDS
) -> BenchmarkReport:
    """Measure the product beside hand-written SQL on made-up usage, in a database that is dropped at the end.

    Args:
        url: Of a server on which our role may create databases; None for an embedded one of its own.
        events: Size of the log, at least `counters`.
        counters: Number of counters, at least 6.
        console: Told what happens, and shown the report.
        seed: Of everything that is random.
        rounds: How often each contestant takes its turn.

    Raises:
        ReconError: A size is impossible, or the server refused something. No counter of the application was touched.
    """
    if counters < 6 or events < counters or rounds < 1:
        raise ConfigurationError(
            f"{events:,} events cannot fill {counters:,} counters, of which there are at least 6, in {rounds} rounds.",
            mend="Ask for at least as many events as counters.",
        )
    with scratch_database(url) as scratch:
        database = BillingDatabase(scratch)
        with console.status(f"Making up {events:,} events …"):
            fill(database, events=events, counters=counters, seed=seed)
        # Spawned, not forked: the memory of this process is not the product's.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            contest = _Contest(database, Product(scratch), pool, console)
            for _ in range(rounds):
                contest.read()
            for _ in range(rounds):
                contest.write()
            mismatch_count = contest.product("verification", contest.contestant.verify).count
            report = _report(contest, events, counters, seed, mismatch_count)
    show(console, report, beside=_FULL_JOIN)
    return report


class _Contest:
    """The contestants and their times so far."""

    def __init__(
        self, database: BillingDatabase, product: Product, pool: ProcessPoolExecutor, console: Console
    ) -> None:
        self.database = database
        self.contestant = product
        self.pool = pool
        self.console = console
        self.times: defaultdict[str, list[float]] = defaultdict(list)
        self.repairs: list[Timing] = []

    def read(self) -> None:
        """One turn of everything that changes no counter."""
        self.by_hand(_GROUP_BY, "benchmark_group_by", work_mem=WORK_MEM)
        self.by_hand(_FULL_JOIN, "benchmark_full_join", work_mem=WORK_MEM)
        self.product(_DETECT, self.contestant.detect)
        self.by_hand(_FULL_JOIN_DEFAULT, "benchmark_full_join")
        self.product("verification", self.contestant.verify)
        self.product("quality of the log", self.contestant.measure_events)
        execute_outside_transaction(self.database, "truncate recon.usage_aggregate")
        self.product("event sums stored from scratch", self.contestant.store_aggregates)
        self.product("event sums stored, nothing new", self.contestant.store_aggregates)
        self.product("a whole tick, nothing drifted", self.contestant.tick)

    def write(self) -> None:
        """One turn of everything that repairs: each finds every counter drifted."""
        for name, work_mem in ((_UPDATE_DEFAULT, None), (_UPDATE, WORK_MEM)):
            self._drift()
            self.by_hand(name, "benchmark_unsafe_update", work_mem=work_mem)
        self._drift()
        self.repairs.append(self.product(_REPAIR, self.contestant.repair))

    def by_hand(self, name: str, statement_name: str, *, work_mem: str | None = None) -> None:
        """Run and time one statement of those that one writes by hand."""
        with self._turn(name):
            began = time.perf_counter()
            with self.database.connection() as connection, connection.begin():
                if work_mem is not None:
                    connection.execute(text("select set_config('work_mem', :work_mem, true)"), {"work_mem": work_mem})
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
        with self._turn("making every counter drift"), self.database.connection() as connection, connection.begin():
            connection.execute(statement("benchmark_drift_every_counter"))
        # Every contestant finds the table as vacuum leaves it, not as the one before it did.
        execute_outside_transaction(self.database, "vacuum analyze billing_usage_counters")

    @contextmanager
    def _turn(self, name: str) -> Iterator[None]:
        with self.console.status(f"{name} …"):
            yield


def _report(contest: _Contest, events: int, counters: int, seed: int, mismatch_count: int) -> BenchmarkReport:
    best = {name: min(times) for name, times in contest.times.items()}
    peak_memory_mb = contest.pool.submit(peak_memory_bytes).result() / 1e6
    with contest.database.transaction() as connection:
        server_version = describe_server(connection).version_name
    return BenchmarkReport(
        server_version=server_version.split()[0],
        events=events,
        counters=counters,
        seed=seed,
        measurements=tuple(Measurement(name, tuple(times)) for name, times in contest.times.items()),
        bars=(
            Bar(
                "Detection from scratch, to the full join by hand", best[_DETECT] / best[_FULL_JOIN], DETECTION_BAR, "x"
            ),
            Bar("Safe repair with ledger, to the unsafe UPDATE", best[_REPAIR] / best[_UPDATE], REPAIR_BAR, "x"),
            Bar("Peak memory of the product's process", peak_memory_mb, MEMORY_BAR_MB, "MB"),
        ),
        repaired_count=contest.repairs[-1].count,
        longest_chunk_seconds=max(timing.longest_chunk_seconds for timing in contest.repairs),
        peak_memory_mb=peak_memory_mb,
        mismatch_count=mismatch_count,
        plan=_plan(contest.database),
    )


def _plan(database: BillingDatabase) -> tuple[str, ...]:
    """The top nodes of the plan that the comparison runs by, under the settings of its transaction."""
    run = reconciliation("benchmark-plan")
    with database.transaction("REPEATABLE READ") as connection:
        tables = require_trustworthy(connection)
        comparison = statement("compare_counters_with_log", **tables.parts, **tables.limit_parts).text
        lines = connection.execute(
            text(f"explain (costs off) {comparison}"),
            run.parameters(run.extent.scope[0], tables) | {"ordinal_offset": 0},
        ).scalars()
        return tuple(line for line in lines if "->" in line or not line.startswith(" "))[:_PLAN_LINES]
