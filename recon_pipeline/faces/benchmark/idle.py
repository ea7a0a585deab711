"""`recon benchmark --idle`: what the product costs while nothing happens, and how long its short commands take.

Invariant: it measures `recon dev` and commands as a person starts them, as processes, on databases of their own.
Processor time is the kernel's, of these processes and all that they started; rows are those of Dagster's tables.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from recon_pipeline.core.errors import ReconError
from recon_pipeline.faces.benchmark.report import Bar, Promised, show_bars
from recon_pipeline.faces.benchmark.scratch import fill, scratch_database
from recon_pipeline.faces.benchmark.watched_dev import (
    COMMAND,
    Watch,
    await_confirmed,
    count_confirmed,
    processes,
    running_dev,
    watch,
)
from recon_pipeline.faces.console import EXIT_CLEAN, EXIT_NOT_CLEAN
from recon_pipeline.faces.dagster_home import settings_of_release
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.postgres.statements import labelled

SHORT_COMMANDS: Mapping[str, Sequence[str]] = {
    "pause": ("--reason", "measured"),
    "resume": (),
    "hold": ("--customer", "cus_0000001", "--reason", "measured", "--until", "1h"),
    "release": ("--customer", "cus_0000001"),
    "status": (),
    "explain": ("--customer", "cus_0000001"),
}
IMPORTS = "import sqlalchemy, psycopg"
"""What the time of a command is compared with: less than this no command needs that asks Postgres."""

_COUNT_ROWS = {
    "job_ticks": labelled("count_job_ticks", "select coalesce(max(id), 0) from job_ticks"),
    "event_logs": labelled("count_event_logs", "select coalesce(max(id), 0) from event_logs"),
    "asset_check_executions": labelled(
        "count_check_executions", "select coalesce(max(id), 0) from asset_check_executions"
    ),
    "runs": labelled("count_runs", "select coalesce(max(id), 0) from runs"),
}


@dataclass(frozen=True)
class IdleReport(Promised):
    """What was measured.

    Attributes:
        seconds: For how long `recon dev` was watched.
        idle_ticks: Of the schedule, in that time.
        command_seconds: The median of each command.
        imports_seconds: The median of what they are compared with.
        cpu_seconds: Of the processes, by name.
        memory_mb: The same.
        rows: Of Dagster's tables, written in that time.
        bars: The promises.
    """

    seconds: int
    idle_ticks: int
    command_seconds: Mapping[str, float]
    imports_seconds: float
    cpu_seconds: Mapping[str, float]
    memory_mb: Mapping[str, float]
    rows: Mapping[str, int]
    bars: tuple[Bar, ...]


def measure_idle(url: str | None, *, seconds: int, console: Console, rounds: int = 5) -> IdleReport:
    """Measure short commands, then an idle `recon dev` once its ticks start no runs any more.

    Args:
        url: Of a server on which our role may create databases; None for an embedded one of its own.
        seconds: For how long `recon dev` is watched; ticks come every 300.
        console: Shows what happens, and the report.
        rounds: How often each command takes its turn.

    Raises:
        ReconError: A command failed, or `recon dev` did not come to rest.
    """
    with (
        scratch_database(url) as billing_url,
        scratch_database(billing_url) as dagster_url,
        tempfile.TemporaryDirectory(prefix="recon-benchmark-") as folder,
    ):
        billing, records = BillingDatabase(billing_url), BillingDatabase(dagster_url)
        fill(billing, events=6_000, counters=600, seed=1)
        environment = _environment(Path(folder), billing_url, dagster_url)
        with console.status("Short commands …"):
            commands = _time_commands(environment, rounds)
        with (
            console.status(f"recon dev, until its ticks start no runs, and then for {seconds} s …"),
            running_dev(environment) as dev,
        ):
            await_confirmed(billing, dev)
            before, confirmed = _count(records), count_confirmed(billing)
            watched = watch(billing, dev, seconds)
            rows = {name: count - before[name] for name, count in _count(records).items()}
            idle_ticks = count_confirmed(billing) - confirmed
            memory = {name: process.memory_info().rss / 1e6 for name, process in processes(dev).items()}
    imports = commands.pop(IMPORTS)
    report = IdleReport(
        seconds, idle_ticks, commands, imports, watched.cpu_seconds, memory, rows,
        tuple(_bars(commands, imports, watched, rows, idle_ticks, seconds)),
    )  # fmt: skip
    _show(console, report)
    return report


def _bars(
    commands: Mapping[str, float],
    imports: float,
    watched: Watch,
    rows: Mapping[str, int],
    idle_ticks: int,
    seconds: int,
) -> Iterator[Bar]:
    for name, took in commands.items():
        yield Bar(f"recon {name}, to {IMPORTS}", took / imports, 3)
    if idle_ticks:
        yield Bar("Processor time of an idle tick", watched.tick_seconds, 0.5, "s")
        yield Bar("Rows of event_logs for an idle tick", rows["event_logs"] / idle_ticks, 12, "rows")
        yield Bar("Processor time in five minutes", sum(watched.cpu_seconds.values()) * 300 / seconds, 7, "s")
    yield Bar("Rows of job_ticks in a minute", rows["job_ticks"] * 60 / seconds, 2, "rows")


def _show(console: Console, report: IdleReport) -> None:
    table = Table("Process", title=f"recon dev in {report.seconds} s with {report.idle_ticks} idle ticks")
    for heading in ("Processor time", "Memory"):
        table.add_column(heading, justify="right")
    for name, took in report.cpu_seconds.items():
        table.add_row(name, f"{took:.2f} s", f"{report.memory_mb.get(name, 0):.0f} MB")
    total = sum(report.memory_mb.values())
    table.add_row("all", f"{sum(report.cpu_seconds.values()):.2f} s", f"{total:.0f} MB")
    table.caption = "New rows in Dagster's tables: " + ", ".join(f"{n} {c}" for n, c in report.rows.items())
    console.print(table)
    commands = Table("Command", title="Short commands")
    commands.add_column("Median", justify="right")
    commands.add_row(f'python -c "{IMPORTS}"', f"{report.imports_seconds:.2f} s")
    for name, took in report.command_seconds.items():
        commands.add_row(f"recon {name}", f"{took:.2f} s")
    console.print(commands)
    show_bars(console, report.bars)


def _environment(folder: Path, billing_url: str, dagster_url: str) -> dict[str, str]:
    """The environment of the processes, with only those variables of the product that are measured."""
    (folder / "dagster.yaml").write_bytes(settings_of_release())
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RECON_", "DAGSTER_"))}
    return kept | {"DATABASE_URL": billing_url, "DAGSTER_PG_URL": dagster_url, "DAGSTER_HOME": str(folder)}


def _time_commands(environment: Mapping[str, str], rounds: int) -> dict[str, float]:
    """The median of each in seconds, taken in turns."""
    asked = {IMPORTS: [IMPORTS]} | {name: [COMMAND, name, *rest] for name, rest in SHORT_COMMANDS.items()}
    took: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, code in asked.items():
            began = time.perf_counter()
            ended = subprocess.run(  # noqa: S603 - our own interpreter and arguments
                [sys.executable, "-c", *code], env=dict(environment), capture_output=True, text=True, check=False
            )
            took[name].append(time.perf_counter() - began)
            if ended.returncode not in (EXIT_CLEAN, EXIT_NOT_CLEAN):  # `status` says so before any run
                raise ReconError(f"{name} failed: {ended.stderr.strip()[-500:]}", fix="Report this with what it says.")
    return {name: median(values) for name, values in took.items()}


def _count(records: BillingDatabase) -> dict[str, int]:
    with records.connection(any_schema_version=True) as connection, connection.begin():
        return {name: connection.execute(count).scalar_one() for name, count in _COUNT_ROWS.items()}
