"""`recon benchmark --archive`: a sealed month that is archived, beside a plain COPY of the same month.

    log ─▶ COPY … TO STDOUT, its rows written to a file ⇄ recon archive: written, read back, proven, recorded

Each runs in a process of its own. The product's computes each archive once more, as `recon verify-seals` does.
"""

import tempfile
import time
import uuid
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

from psycopg import sql
from rich.console import Console

from recon_pipeline.assets.archiving import archive_month, verify_archives
from recon_pipeline.core.event_identity import EventIdentity
from recon_pipeline.core.scope import Extent, parse_scope
from recon_pipeline.faces.benchmark.month_report import MonthReport, require_enough, show_month
from recon_pipeline.faces.benchmark.product import FIRST_MONTH, peak_memory_bytes
from recon_pipeline.faces.benchmark.report import Bar, Measurement
from recon_pipeline.faces.benchmark.scratch import execute_outside_transaction, fill, scratch_database
from recon_pipeline.faces.benchmark.statements import statement
from recon_pipeline.settings import DEFAULT_SCOPE, Settings
from recon_pipeline.store.counters import sealing
from recon_pipeline.store.log.decision import decision
from recon_pipeline.store.log.tables import describe_server
from recon_pipeline.store.postgres.database import BillingDatabase, begin
from recon_pipeline.store.postgres.statements import labelled
from recon_pipeline.store.sums.run import Reconciliation

COPY, ARCHIVE, PROVE = "COPY … TO", "recon archive", "an archive read back and proven alone"
FULL_SIZE_EVENTS = 1_000_000
"""From this size on the promises hold: a small month is copied in less time than it takes to connect."""

_USAGE = parse_scope(DEFAULT_SCOPE)[0]
_TIMEOUT_MS = 60 * 60 * 1_000
_EMPTY = "truncate billing_usage_events, billing_usage_counters"
# Fills the log with events of one month.
# Binds: counters bigint, end timestamptz, events bigint, gateway_name text, seed bigint, start timestamptz
# Binds: usage_type text
_FILL_MONTH = labelled(
    "fill_month_to_archive",
    """
    insert into billing_usage_events (
        gateway_name, gateway_customer_id, usage_type, request_id, quantity, period_start, period_end,
        event_timestamp, created_at
    )
    select
        :gateway_name,
        'cus_' || lpad(mod(hashint8extended(number, :seed) & 4611686018427387903, :counters)::text, 7, '0'),
        :usage_type, 'req_' || number, 1 + number % 3, :start, :end, happened_at, happened_at
    from generate_series(1, cast(:events as bigint)) as number
    cross join lateral (
        select
            cast(:start as timestamptz)
            + (cast(:end as timestamptz) - :start) * (number::float / :events) as happened_at
    ) as of_event
    """,
)
_MONTH = sql.SQL(
    "copy (select * from billing_usage_events where gateway_name = {} and usage_type = {} and period_start >= {}"
    " and period_start < {}) to stdout"
).format(_USAGE.gateway_name, _USAGE.usage_type, FIRST_MONTH.start, FIRST_MONTH.end)


@dataclass(frozen=True)
class _Work:
    """What both are given."""

    url: str
    settings: Settings

    def copy(self) -> float:
        """Copy the month to a file; returns seconds."""
        began = time.perf_counter()
        with (
            tempfile.TemporaryFile() as file,
            BillingDatabase(self.url).connection() as connection,
            begin(connection, statement_timeout_ms=_TIMEOUT_MS),
        ):
            driver: Any = connection.connection.driver_connection
            with driver.cursor().copy(_MONTH) as rows:
                for row in rows:
                    file.write(row)
        return time.perf_counter() - began

    def archive(self, folder: str) -> float:
        """Archive the month as the command does; returns seconds."""
        began = time.perf_counter()
        with BillingDatabase(self.url).connection() as connection:
            archive_month(connection, self.settings, FIRST_MONTH, folder, archived_by="benchmark")
        return time.perf_counter() - began

    def prove(self, seal_id: int) -> float:
        """Read the newest archive and compute it again; returns seconds."""
        began = time.perf_counter()
        with BillingDatabase(self.url).connection() as connection:
            wrong = verify_archives(connection, self.settings, [seal_id])
        if wrong is not None:
            raise wrong
        return time.perf_counter() - began


def measure_archive(
    settings: Settings, *, events: int, counters: int, console: Console, seed: int = 1, rounds: int = 3
) -> MonthReport:
    """Measure `recon archive` beside a COPY of the same month.

    Args:
        settings: Name the server; none: an embedded one of its own.
        events: Of the month.
        counters: Keys that they are of.
        console: Shows what happens, and the report.
        seed: Of everything that is random.
        rounds: How often each contestant takes its turn.

    Raises:
        ReconError: A size is impossible, or something refused. No table of the application's was touched.
    """
    require_enough(events, counters)
    settings = replace(settings, scope=(_USAGE,), event_identity=EventIdentity())
    spawning = get_context("spawn")
    with (
        scratch_database(settings.database_url) as url,
        ProcessPoolExecutor(1, mp_context=spawning) as by_hand,
        ProcessPoolExecutor(1, mp_context=spawning) as of_product,
    ):
        with console.status(f"Making up {events:,} events …"):
            seal_id = _seal_month(BillingDatabase(url), settings, events, counters, seed)
        work = _Work(url, settings)
        times: dict[str, list[float]] = {COPY: [], ARCHIVE: [], PROVE: []}
        for _ in range(rounds):
            with console.status(f"{COPY} …"):
                times[COPY].append(by_hand.submit(work.copy).result())
            with tempfile.TemporaryDirectory(prefix="recon-benchmark-") as folder:
                with console.status(f"{ARCHIVE} …"):
                    times[ARCHIVE].append(of_product.submit(work.archive, folder).result())
                with console.status(f"{PROVE} …"):
                    times[PROVE].append(of_product.submit(work.prove, seal_id).result())
        peak_mb = of_product.submit(peak_memory_bytes).result() / 1e6
        with BillingDatabase(url).transaction() as connection:
            version = describe_server(connection).version_name.split()[0]
    ratio = Bar("Events per second of an archive, to COPY", min(times[COPY]) / min(times[ARCHIVE]), 0.5, is_least=True)
    report = MonthReport(
        what="in a sealed month",
        server_version=version,
        seed=seed,
        events=events,
        counters=counters,
        measurements=tuple(Measurement(name, tuple(values)) for name, values in times.items()),
        bars=(
            *((ratio,) if events >= FULL_SIZE_EVENTS else ()),
            Bar("Peak memory of the product's process", peak_mb, 500, "MB"),
        ),
    )
    show_month(console, report)
    return report


def _seal_month(database: BillingDatabase, settings: Settings, events: int, counters: int, seed: int) -> int:
    """Fill a month and seal it; returns the seal."""
    fill(database, events=6, counters=6, seed=seed)
    asked = {**vars(_USAGE), "start": FIRST_MONTH.start, "end": FIRST_MONTH.end}
    with database.connection() as connection, begin(connection, statement_timeout_ms=_TIMEOUT_MS):
        connection.exec_driver_sql(_EMPTY)
        connection.execute(_FILL_MONTH, {**asked, "events": events, "counters": counters, "seed": seed})
        connection.execute(statement("fill_counters"))
    execute_outside_transaction(database, "vacuum analyze")
    run = Reconciliation.of(settings, str(uuid.uuid4()), Extent(settings.scope, FIRST_MONTH, FIRST_MONTH))
    with (
        database.connection() as connection,
        decision(connection, "REPEATABLE READ", statement_timeout_ms=_TIMEOUT_MS) as tables,
    ):
        (done,) = sealing.seal(connection, run, tables, sealed_by="benchmark", reason=None, dagster_run_id=None)
    return done.record.id
