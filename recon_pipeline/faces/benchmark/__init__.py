"""`recon benchmark`: how fast the product is, as ratios to what one would write by hand, measured in the same run.

    scratch ─▶ contest: by hand ⇄ product (a process of its own) ─▶ report, chart
               recorder: with ingest_xid ⇄ without

The contestants take turns, so that other work on the machine disturbs them alike; ratios are of the best times.
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.faces.benchmark import contest as named
from recon_pipeline.faces.benchmark.chart import draw_chart
from recon_pipeline.faces.benchmark.contest import Contest
from recon_pipeline.faces.benchmark.product import Product, peak_memory_bytes
from recon_pipeline.faces.benchmark.recorder import MOST_COUNTERS, MOST_EVENTS, SECONDS, WITH, WITHOUT, measure_recorder
from recon_pipeline.faces.benchmark.report import (
    FULL_SIZE_EVENTS,
    Bar,
    BenchmarkReport,
    Measurement,
    SizeReport,
    show_size,
    show_whole,
)
from recon_pipeline.faces.benchmark.scratch import fill, scratch_database
from recon_pipeline.store.log.tables import describe_server
from recon_pipeline.store.postgres.database import BillingDatabase

__all__ = ["BenchmarkReport", "run_benchmark"]

_CHARTED = {
    named.FULL_JOIN: "full join by hand",
    named.TICK: "tick, 1,000 new events, 100 drifted keys",
    named.IDLE_TICK: "idle tick",
}


def run_benchmark(
    url: str | None,
    *,
    events: Sequence[int],
    counters: int,
    console: Console,
    seed: int = 1,
    rounds: int = 3,
    chart: Path | None = None,
    recorder_seconds: int = SECONDS,
) -> BenchmarkReport:
    """Measure the product beside hand-written SQL on made-up usage, in databases that are dropped at the end.

    Args:
        url: Of a server on which our role may create databases; None for an embedded one of its own.
        events: Sizes of the log, each at least `counters`.
        counters: Number of counters, at least 6.
        console: Shows what happens, and the report.
        seed: Of everything that is random.
        rounds: How often each contestant takes its turn.
        chart: Where to draw times over sizes, or None.
        recorder_seconds: How long each turn of the application's recorder takes.

    Raises:
        ReconError: A size is impossible, or the server refused something. No counter of the application was touched.
    """
    if counters < 6 or not events or min(events) < counters or rounds < 1:
        raise ConfigurationError(
            f"{min(events, default=0):,} events cannot fill {counters:,} counters, of which there are at least 6, "
            f"in {rounds} rounds.",
            fix="Ask for at least as many events as counters.",
        )
    sizes: list[SizeReport] = []
    server_version = ""
    for size in events:
        with scratch_database(url) as scratch:
            server_version = _server_version(scratch)
            sizes.append(_measure_size(scratch, size, counters, console, seed, rounds))
        show_size(console, sizes[-1], beside=named.FULL_JOIN)
    with console.status("the application's recorder, with ingest_xid and without …"):
        rates = measure_recorder(
            url,
            events=min(*events, MOST_EVENTS),
            counters=min(counters, MOST_COUNTERS),
            seed=seed,
            rounds=rounds,
            seconds=recorder_seconds,
        )
    report = BenchmarkReport(server_version, seed, tuple(sizes), rates, _whole_bars(sizes, rates))
    show_whole(console, report)
    if chart is not None:
        draw_chart(chart, sizes, _CHARTED)
    return report


def _measure_size(scratch: str, events: int, counters: int, console: Console, seed: int, rounds: int) -> SizeReport:
    database = BillingDatabase(scratch)
    with console.status(f"Making up {events:,} events …"):
        fill(database, events=events, counters=counters, seed=seed)
    # Spawned, not forked: the memory of this process is not the product's.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        contest = Contest(database, Product(scratch), pool, console, seed)
        for _ in range(rounds):
            contest.read()
        for _ in range(2 * rounds):  # they are short, so a disturbance weighs more
            contest.tick()
        for _ in range(rounds):
            contest.burst(min(named.BURST_KEYS, counters))
        contest.product(named.FULL_TICK, contest.contestant.full_tick)
        for _ in range(rounds):
            contest.write()
        mismatch_count = contest.product(named.VERIFY, contest.contestant.verify).count
        peak_memory_mb = pool.submit(peak_memory_bytes).result() / 1e6
    return SizeReport(
        events=events,
        counters=counters,
        measurements=tuple(Measurement(name, tuple(times)) for name, times in contest.times.items()),
        bars=_size_bars(contest, events, peak_memory_mb),
        repaired_count=contest.repairs[-1].count,
        longest_lock_seconds=max(timing.longest_lock_seconds for timing in contest.repairs),
        peak_memory_mb=peak_memory_mb,
        mismatch_count=mismatch_count,
    )


def _size_bars(contest: Contest, events: int, peak_memory_mb: float) -> tuple[Bar, ...]:
    """The promises at one size. SQL by hand runs with the server's own settings, which nobody has tuned for it."""
    best = {name: min(times) for name, times in contest.times.items()}
    join, group_by = best[named.FULL_JOIN], best[named.GROUP_BY]
    burst_pace = (contest.burst_events / best[named.BURST]) / (events / group_by)
    of_full_size = (
        Bar("Detection from the log, to the tuned full join", best[named.DETECT] / best[named.FULL_JOIN_TUNED], 1.2),
        Bar("Full join, to a tick with 1,000 new events", join / best[named.TICK], 50, is_least=True),
        Bar("Full join, to an idle tick", join / best[named.IDLE_TICK], 100, is_least=True),
        Bar("Event sums built from scratch, to GROUP BY", best[named.BUILD] / group_by, 1.5),
        Bar("Events absorbed per second in a burst, to GROUP BY", burst_pace, 0.25, is_least=True),
        Bar("Safe repair of everything, to the unsafe UPDATE", best[named.REPAIR] / best[named.UPDATE], 1.0),
    )
    return (
        *(of_full_size if events >= FULL_SIZE_EVENTS else ()),
        Bar("Peak memory of the product's process", peak_memory_mb, 400, "MB"),
    )


def _whole_bars(sizes: Sequence[SizeReport], rates: Sequence[Measurement]) -> tuple[Bar, ...]:
    rate = {one.name: one.most for one in rates}
    recorder = Bar("Recorder with ingest_xid, to without", rate[WITH] / rate[WITHOUT], 0.9, is_least=True)
    if len(sizes) < 2:
        return (recorder,)
    smallest, largest = min(sizes, key=lambda size: size.events), max(sizes, key=lambda size: size.events)
    span = f"{largest.events:,} events to {smallest.events:,}"
    memory = [size.peak_memory_mb for size in sizes]
    return (
        recorder,
        Bar(f"A tick at {span}", largest.seconds(named.TICK) / smallest.seconds(named.TICK), 1.3),
        Bar("Most memory at any size, to least", max(memory) / min(memory), 1.2),
    )


def _server_version(url: str) -> str:
    with BillingDatabase(url).transaction(any_schema_version=True) as connection:
        return describe_server(connection).version_name.split()[0]
