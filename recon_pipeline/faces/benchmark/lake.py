"""`recon benchmark --lake`: a month counted in a lake, beside the engine alone.

    files ─▶ the engine alone: its sums read to the end ⇄ product: sums staged in Postgres, kept, compared with counters

Both run the same expression over the same files, each in a process of its own, with the memory that a count has.
"""

import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console

from recon_pipeline.assets.lake_counting import count_months
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.event_identity import EventIdentity
from recon_pipeline.core.scope import parse_scope
from recon_pipeline.faces.benchmark.month_report import MonthReport, show_month
from recon_pipeline.faces.benchmark.product import FIRST_MONTH, Product, peak_memory_bytes
from recon_pipeline.faces.benchmark.report import Bar, Measurement
from recon_pipeline.faces.benchmark.scratch import fill, scratch_database
from recon_pipeline.lake.counting import find_lake, open_lake
from recon_pipeline.lake.mapped import of_month
from recon_pipeline.lake.session import duckdb_session
from recon_pipeline.lake.settings import DEFAULT_MEMORY_MB, LakeSettings
from recon_pipeline.lake.sums import event_sums
from recon_pipeline.settings import DEFAULT_SCOPE, Settings
from recon_pipeline.store.log.tables import describe_server
from recon_pipeline.store.postgres.database import BillingDatabase, begin
from recon_pipeline.store.postgres.statements import labelled

ALONE, COUNT, COMPARE = "the engine alone", "recon count-lake", "comparison with the counters"
FULL_SIZE_EVENTS = 10_000_000
"""From this size on the promises hold: a small lake is counted in less time than it takes to open it."""

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


def measure_lake(
    settings: Settings, *, events: int, counters: int, console: Console, seed: int = 1, rounds: int = 3
) -> MonthReport:
    """Measure `recon count-lake` and the comparison after it beside the engine alone.

    Args:
        settings: Name the server; none: an embedded one of its own.
        events: In the lake, in one month.
        counters: Keys that they are of.
        console: Shows what happens, and the report.
        seed: Of everything that is random.
        rounds: How often each contestant takes its turn.

    Raises:
        ReconError: A size is impossible, or something refused. No table of the application's was touched.
    """
    if events < counters:
        raise ConfigurationError(
            f"{events:,} events cannot fill {counters:,} counters.", fix="Ask for at least as many events as counters."
        )
    spawning = get_context("spawn")
    with (
        scratch_database(settings.database_url) as url,
        tempfile.TemporaryDirectory(prefix="recon-benchmark-") as folder,
        ProcessPoolExecutor(1, mp_context=spawning) as of_engine,
        ProcessPoolExecutor(1, mp_context=spawning) as of_product,
    ):
        database = BillingDatabase(url)
        fill(database, events=6, counters=6, seed=seed)
        with console.status(f"Making up {events:,} events …"):
            _write_events(Path(folder), events, counters, seed)
        lake = LakeSettings(folder, FIRST_MONTH.next(), None, DEFAULT_MEMORY_MB)
        work = _Work(url, lake, settings)
        times: dict[str, list[float]] = {ALONE: [], COUNT: [], COMPARE: []}
        drifted = 0
        for turn in range(rounds):
            with console.status(f"{ALONE} …"):
                times[ALONE].append(of_engine.submit(work.alone).result())
            with console.status(f"{COUNT} …"):
                times[COUNT].append(of_product.submit(work.count, turn).result())
            if turn == 0:
                _make_counters(database)
            with console.status(f"{COMPARE} …"):
                compared = of_product.submit(Product(url).detect).result()
            times[COMPARE].append(compared.seconds)
            drifted += compared.count
        peak_mb = of_product.submit(peak_memory_bytes).result() / 1e6
        with database.transaction() as connection:
            version = describe_server(connection).version_name.split()[0]
    if drifted:
        raise AssertionError(f"{drifted} counters differ from the sums that they were made of")
    ratio = min(times[ALONE]) / (min(times[COUNT]) + min(times[COMPARE]))
    bars = (Bar("Engine alone, to the product", ratio, 0.8, is_least=True),) if events >= FULL_SIZE_EVENTS else ()
    report = MonthReport(
        what="in a lake",
        server_version=version,
        seed=seed,
        events=events,
        counters=counters,
        measurements=tuple(Measurement(name, tuple(values)) for name, values in times.items()),
        bars=(*bars, Bar("Peak memory of the product's process", peak_mb, 4_000, "MB")),
    )
    show_month(console, report)
    return report


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
