"""`recon benchmark --backfill`: events from files into the log, beside what one would write by hand.

    export ─▶ by hand: COPY, INSERT … ON CONFLICT ⇄ product: the command `recon backfill-events`, a process of its own

Each has a database of its own, with the same content. Each round inserts new rows of a Parquet file, then the same rows
again, as duplicates, and then new rows in each of the other forms, which are the same file for both.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import psutil
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
from rich.console import Console

from recon_pipeline.core.errors import ConfigurationError, ReconError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.benchmark import by_hand
from recon_pipeline.faces.benchmark.export_forms import FORMS, Form
from recon_pipeline.faces.benchmark.product import peak_memory_bytes
from recon_pipeline.faces.benchmark.report import BackfillReport, Bar, Measurement, show_backfill
from recon_pipeline.faces.benchmark.scratch import fill, scratch_database
from recon_pipeline.faces.benchmark.statements import statement
from recon_pipeline.store.log.tables import describe_server
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.postgres.statements import with_name

BY_HAND, BY_HAND_AGAIN = "by hand, new rows", "by hand, duplicates"
COMMAND, COMMAND_AGAIN = "recon backfill-events, new rows", "recon backfill-events, duplicates"

FULL_SIZE_ROWS = 1_000_000
"""From this size on the promises hold: a small file is read in less time than the command takes to start."""

_MONTHS = 6
_POLL_SECONDS = 0.02
_COMMAND = "from recon_pipeline.faces.cli import main; main()"
# An export of the source's audit log.
_EXPORT_LATE_EVENTS = with_name("export_late_events", "copy pg_temp.late_event to stdout (format csv, header)")

_DAGSTER_YAML = "telemetry: {enabled: false}\nnux: {enabled: false}\n"


@dataclass(frozen=True)
class _Export:
    """The same rows in the form that each contestant takes."""

    csv: Path
    parquet: Path


def measure_backfill(
    url: str | None, *, rows: int, events: int, counters: int, console: Console, seed: int = 1, rounds: int = 3
) -> BackfillReport:
    """Measure `recon backfill-events` beside COPY and INSERT … ON CONFLICT DO NOTHING.

    Args:
        url: Of a server on which our role may create databases; None for embedded ones of its own.
        rows: Of the export.
        events: In the log before, at least `counters`.
        counters: Beside it, at least 6.
        console: Shows what happens, and the report.
        seed: Of everything that is random.
        rounds: How often each contestant takes its turn; the log grows by `rows` each time.

    Raises:
        ReconError: A size is impossible, or something refused. No table of the application's was touched.
    """
    if counters < 6 or events < counters or rows < 1 or rounds < 1:
        raise ConfigurationError(
            f"{events:,} events cannot fill {counters:,} counters, of which there are at least 6.",
            fix="Ask for at least as many events as counters, and for at least one row and one round.",
        )
    first = _first_month(datetime.now(UTC))
    times: defaultdict[str, list[float]] = defaultdict(list)
    peaks: list[float] = []
    with (
        scratch_database(url) as of_hand,
        scratch_database(url) as of_product,
        tempfile.TemporaryDirectory(prefix="recon-benchmark-") as folder,
    ):
        for database in (of_hand, of_product):
            with console.status(f"Making up {events:,} events …"):
                fill(BillingDatabase(database), events=events, counters=counters, seed=seed)
        hand = BillingDatabase(of_hand)
        environment = _environment(Path(folder), of_product, first)
        for turn in range(rounds):
            with console.status(f"Making up {rows:,} late events …"):
                export = _export(hand, Path(folder), rows, counters // 6, seed + turn, first)
            for ours, theirs, inserted in ((BY_HAND, COMMAND, rows), (BY_HAND_AGAIN, COMMAND_AGAIN, 0)):
                with console.status(f"{ours} …"):
                    times[ours].append(_inserted(ours, by_hand.insert_events(hand, export.csv), inserted))
                with console.status(f"{theirs} …"):
                    seconds, peak = _run_command(environment, [str(export.parquet)], rows, inserted)
                times[theirs].append(seconds)
                peaks.append(peak)
            for number, form in enumerate(FORMS, start=1):
                with console.status(f"{form.name} …"):
                    other = _export(hand, Path(folder), rows, counters // 6, seed + turn + number * rounds, first)
                    exported, mapping = form.export(other.csv, Path(folder))
                    asked = [str(exported), "--mapping", str(mapping)]
                    ours = _by_hand(form)
                    times[ours].append(_inserted(ours, by_hand.insert_form(hand, form, exported), rows))
                    seconds, peak = _run_command(environment, asked, rows, rows)
                times[_command(form)].append(seconds)
                peaks.append(peak)
        with hand.transaction() as connection:
            version = describe_server(connection).version_name.split()[0]
    report = BackfillReport(
        server_version=version,
        seed=seed,
        rows=rows,
        events=events,
        counters=counters,
        measurements=tuple(Measurement(name, tuple(values)) for name, values in times.items()),
        bars=_bars(times, rows, max(peaks)),
    )
    beside = {COMMAND: BY_HAND, COMMAND_AGAIN: BY_HAND_AGAIN} | {_command(form): _by_hand(form) for form in FORMS}
    show_backfill(console, report, beside=beside)
    return report


def _bars(times: Mapping[str, list[float]], rows: int, peak_mb: float) -> tuple[Bar, ...]:
    best = {name: min(values) for name, values in times.items()}
    of_full_size = (
        Bar("New rows per second, to those by hand", best[BY_HAND] / best[COMMAND], 0.6, is_least=True),
        Bar("Duplicates per second, to those by hand", best[BY_HAND_AGAIN] / best[COMMAND_AGAIN], 0.6, is_least=True),
        *(
            Bar(f"{form.name}, to those by hand", best[_by_hand(form)] / best[_command(form)], 0.6, is_least=True)
            for form in FORMS
        ),
    )
    memory = Bar("Peak memory of the command's process", peak_mb, 500, "MB")
    return (*(of_full_size if rows >= FULL_SIZE_ROWS else ()), memory)


def _by_hand(form: Form) -> str:
    return f"{form.name}, by hand"


def _command(form: Form) -> str:
    return f"{form.name}, recon backfill-events"


def _first_month(now: datetime) -> BillingMonth:
    """So long ago that the last period has ended, which begins late in its month: no event is still to come."""
    year, month = divmod(now.year * 12 + now.month - 2 - _MONTHS, 12)
    return BillingMonth(year, month + 1)


def _export(
    database: BillingDatabase, folder: Path, rows: int, customers: int, seed: int, first: BillingMonth
) -> _Export:
    """Write the rows as CSV, and those as Parquet."""
    export = _Export(folder / "late.csv", folder / "late.parquet")
    with database.transaction() as connection:
        connection.execute(statement("uniform"))
        connection.execute(statement("create_late_events"))
        made_up = {"rows": rows, "customers": customers, "seed": seed, "first_start": first.start}
        connection.execute(statement("fill_late_events"), made_up)
        with by_hand.cursor_of(connection) as cursor, cursor.copy(_EXPORT_LATE_EVENTS) as copy:
            export.csv.write_bytes(b"")
            with export.csv.open("ab") as file:
                file.writelines(copy)
    instant = pa.timestamp("us", "UTC")
    types = {name: instant for name in ("event_timestamp", "period_start", "period_end")}
    options = arrow_csv.ConvertOptions(column_types={**types, "quantity": pa.int32(), "request_id": pa.string()})
    # As pandas and Arrow write a file by default: groups of a million rows.
    pq.write_table(arrow_csv.read_csv(export.csv, convert_options=options), export.parquet)
    return export


def _run_command(environment: Mapping[str, str], asked: Sequence[str], rows: int, expected: int) -> tuple[float, float]:
    """The command as a person starts it, from its start to its end; in seconds, and its memory in MB."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603 - no shell; the file is one of ours
            [sys.executable, "-c", _COMMAND, "backfill-events", *asked, "--no-reconcile", "--json"],
            env=dict(environment),
            stdout=output,
            stderr=errors,
        )
        peak = _watched(process)
        seconds = time.perf_counter() - began
        answer = _json_in(output)
        if process.returncode != 0 or answer is None:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()[-500:] or json.dumps(answer)[:500]
            raise ReconError(f"recon backfill-events failed: {said}", fix="Report this with what it says.")
    if answer["rows_read"] != rows:
        raise AssertionError(f"{answer['rows_read']} rows were read, not {rows}")
    _require_inserted(COMMAND, answer["inserted"], expected)
    return seconds, peak / 1e6


def _watched(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process to end; returns the most memory that it held, in bytes."""
    peak = 0
    while process.poll() is None:
        try:
            peak = max(peak, peak_memory_bytes(process.pid))
        except psutil.Error:  # it has ended just now
            continue
        time.sleep(_POLL_SECONDS)
    return peak


def _environment(folder: Path, url: str, first: BillingMonth) -> dict[str, str]:
    """The command's environment: only the measured variables of the product, and a run history of its own."""
    (folder / "dagster.yaml").write_text(_DAGSTER_YAML)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RECON_", "DAGSTER_"))}
    return kept | {"DATABASE_URL": url, "DAGSTER_HOME": str(folder), "RECON_START_PERIOD": first.key}


def _inserted(name: str, found: tuple[float, int], expected: int) -> float:
    seconds, inserted = found
    _require_inserted(name, inserted, expected)
    return seconds


def _require_inserted(name: str, inserted: int, expected: int) -> None:
    if inserted != expected:
        raise AssertionError(f"{name}: {inserted} rows were inserted, not {expected}")


def _json_in(output: IO[bytes]) -> dict[str, Any] | None:
    output.seek(0)
    text = output.read().decode().strip()
    return json.loads(text) if text.startswith("{") else None
