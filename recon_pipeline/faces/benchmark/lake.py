"""`recon benchmark --lake`: a month counted in a lake, beside the engine alone; by DuckDB, and by Spark if it is there.

    files ─▶ the engine alone: its sums read to the end ⇄ product: sums kept in Postgres, compared with counters

Both run the same expression over the same files, each in a process of its own, with the memory that a count has. All
engines are compared with counters that the first of them counted.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import psutil
from rich.console import Console

from recon_pipeline.assets.lake_counting import count_months
from recon_pipeline.core.event_identity import EventIdentity
from recon_pipeline.core.scope import parse_scope
from recon_pipeline.faces.benchmark.month_report import MonthReport, require_enough, show_month
from recon_pipeline.faces.benchmark.product import FIRST_MONTH, Product, peak_memory_bytes
from recon_pipeline.faces.benchmark.report import Bar, Measurement
from recon_pipeline.faces.benchmark.scratch import fill, scratch_database
from recon_pipeline.lake.counting import find_lake, open_lake
from recon_pipeline.lake.engine_settings import DEFAULT_MEMORY_MB, DUCKDB, SPARK, EngineSettings
from recon_pipeline.lake.mapped import of_month
from recon_pipeline.lake.session import duckdb_session
from recon_pipeline.lake.settings import LakeSettings
from recon_pipeline.lake.sums import event_sums
from recon_pipeline.settings import DEFAULT_SCOPE, Settings
from recon_pipeline.store.log.tables import describe_server
from recon_pipeline.store.postgres.database import BillingDatabase, begin
from recon_pipeline.store.postgres.statements import labelled

ALONE, COUNT, COMPARE = "the engine alone", "recon count-lake", "comparison with the counters"
_NAMES = {DUCKDB: "DuckDB", SPARK: "Spark"}
FULL_SIZE_EVENTS = 100_000_000
"""From this size on the promise holds, with as many keys as there are by default: what the product adds grows with the
keys, and not with the events."""

_USAGE = parse_scope(DEFAULT_SCOPE)[0]
_FILES = 8
_FILLING_TIMEOUT_MS = 60 * 60 * 1_000
_COUNTERS_OF_COUNT = labelled(
    "counters_of_lake_count",
    """
    insert into billing_usage_counters (
        gateway_name, gateway_customer_id, usage_type, period_start, period_end, usage_count
    )
    select :gateway_name, gateway_customer_id, :usage_type, period_start, period_end, usage_count::bigint
    from recon.lake_counter
    """,
)
_EMPTY = "truncate billing_usage_events, billing_usage_counters"


@dataclass(frozen=True)
class _Work:
    """What both are given."""

    url: str
    lake: LakeSettings
    settings: Settings

    def alone(self) -> float:
        """Sum with the engine, and read what it says; returns seconds."""
        began = time.perf_counter()
        identity = EventIdentity()
        with open_lake(self.lake, find_lake(self.lake, identity), identity) as opened:
            events = of_month(opened.events_of(FIRST_MONTH), _USAGE, FIRST_MONTH)
            with opened.engine.run(event_sums(opened.engine, events, identity).table) as batches:
                for _ in batches:
                    pass
        return time.perf_counter() - began

    def count(self, turn: int) -> float:
        """Count the month as the command does; returns seconds."""
        began = time.perf_counter()
        (Path(self.lake.url) / "part-0.parquet").touch()  # what did not change is not counted again
        (counted,) = count_months(
            BillingDatabase(self.url), self.settings, self.lake, [FIRST_MONTH], counted_by=f"benchmark {turn}"
        )
        if not counted.is_new:
            raise AssertionError("the month was not counted")
        return time.perf_counter() - began


def engines_here() -> tuple[EngineSettings, ...]:
    """DuckDB, and Spark where it is installed: that of RECON_SPARK_MASTER, else one of this machine."""
    found = [EngineSettings(DUCKDB)]
    if find_spec("pyspark") is not None and (shutil.which("java") or os.environ.get("JAVA_HOME")):
        master = os.environ.get("RECON_SPARK_MASTER") or "local[*]"
        found.append(EngineSettings(SPARK, DEFAULT_MEMORY_MB, master))
    return tuple(found)


def measure_lake(
    settings: Settings,
    *,
    events: int,
    counters: int,
    console: Console,
    engines: Sequence[EngineSettings],
    seed: int = 1,
    rounds: int = 3,
) -> MonthReport:
    """Measure `recon count-lake` and the comparison after it beside the engine alone.

    Args:
        settings: Name the server; none: an embedded one of its own.
        events: In the lake, in one month.
        counters: Keys that they are of.
        console: Shows what happens, and the report.
        engines: Those that count.
        seed: Of everything that is random.
        rounds: How often each contestant takes its turn.

    Raises:
        ReconError: A size is impossible, or something refused. No table of the application's was touched.
    """
    require_enough(events, counters)
    found: list[Measurement] = []
    bars: list[Bar] = []
    with (
        scratch_database(settings.database_url) as url,
        tempfile.TemporaryDirectory(prefix="recon-benchmark-") as folder,
    ):
        database = BillingDatabase(url)
        fill(database, events=6, counters=6, seed=seed)
        with console.status(f"Making up {events:,} events …"):
            _write_events(Path(folder), events, counters, seed)
        for place, engine in enumerate(engines):
            lake = LakeSettings(folder, FIRST_MONTH.next(), None, engine)
            times, peak_mb = _measured(_Work(url, lake, settings), database, rounds, console, is_first=place == 0)
            name = _NAMES[engine.name]
            found += [Measurement(f"{name}: {what}", tuple(values)) for what, values in times.items()]
            ratio = min(times[ALONE]) / (min(times[COUNT]) + min(times[COMPARE]))
            if events >= FULL_SIZE_EVENTS:
                bars.append(Bar(f"{name} alone, to the product", ratio, 0.8, is_least=True))
            bars.append(Bar(f"Peak memory of the product with {name}", peak_mb, 4_000, "MB"))
        with database.transaction() as connection:
            version = describe_server(connection).version_name.split()[0]
    report = MonthReport(
        what="in a lake",
        server_version=version,
        seed=seed,
        events=events,
        counters=counters,
        measurements=tuple(found),
        bars=tuple(bars),
    )
    show_month(console, report)
    return report


def _measured(
    work: _Work, database: BillingDatabase, rounds: int, console: Console, *, is_first: bool
) -> tuple[dict[str, list[float]], float]:
    """Seconds of one engine by name, and the peak memory of the product in MB."""
    times: dict[str, list[float]] = {ALONE: [], COUNT: [], COMPARE: []}
    spawning = get_context("spawn")
    with (
        ProcessPoolExecutor(1, mp_context=spawning) as of_engine,
        ProcessPoolExecutor(1, mp_context=spawning) as of_product,
    ):
        for turn in range(rounds):
            with console.status(f"{_NAMES[work.lake.engine.name]}: {ALONE} …"):
                times[ALONE].append(of_engine.submit(work.alone).result())
            with console.status(f"{_NAMES[work.lake.engine.name]}: {COUNT} …"):
                times[COUNT].append(of_product.submit(work.count, turn).result())
            if is_first and turn == 0:
                _make_counters(database)
            with console.status(f"{COMPARE} …"):
                compared = of_product.submit(Product(work.url).detect).result()
            times[COMPARE].append(compared.seconds)
            if compared.count:
                raise AssertionError(f"{compared.count} counters differ from the sums that they were made of")
        return times, of_product.submit(_peak_memory_bytes).result() / 1e6


def _peak_memory_bytes() -> int:
    """Of this process, and of the Java that it started for Spark."""
    children = psutil.Process().children(recursive=True)
    return peak_memory_bytes() + sum(peak_memory_bytes(one.pid) for one in children)


def _write_events(folder: Path, events: int, counters: int, seed: int) -> None:
    """Events of one month in several files, of which one in a hundred is there twice."""
    share = -(-events // _FILES)
    start, end = FIRST_MONTH.start.isoformat(), FIRST_MONTH.end.isoformat()
    with duckdb_session() as session:
        for number in range(_FILES):
            first, last = number * share, min((number + 1) * share, events)
            session.execute(
                f"""
                copy (
                    select
                        '{_USAGE.gateway_name}' as gateway_name,
                        'cus_' || (case when i < {counters} then i else hash(i, {seed}) % {counters} end)
                            as gateway_customer_id,
                        '{_USAGE.usage_type}' as usage_type,
                        'req-' || (i - (i % 100 = 99)::int) as request_id,
                        (1 + hash(i, {seed}, 'quantity') % 20)::bigint as quantity,
                        timestamptz '{start}' + to_microseconds(i) as event_timestamp,
                        timestamptz '{start}' + to_microseconds(i) as created_at,
                        timestamptz '{start}' as period_start,
                        timestamptz '{end}' as period_end
                    from range({first}, {last}) as made_up (i)
                ) to '{folder}/part-{number}.parquet' (format parquet, compression zstd)
                """  # noqa: S608 - of numbers and names of our own
            )


def _make_counters(database: BillingDatabase) -> None:
    with database.connection() as connection, begin(connection, statement_timeout_ms=_FILLING_TIMEOUT_MS):
        connection.exec_driver_sql(_EMPTY)
        connection.execute(_COUNTERS_OF_COUNT, vars(_USAGE))
