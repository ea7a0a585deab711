"""The recorder at full speed with hot customers, beside the product at its busiest: what it costs; nothing is lost.

Rounds alone, beside the product, and beside a session that only reads the log take turns, so that a machine that
gets slower meets all. Beside the product means: one process ticks every second, and another repairs the whole
database again and again, each time after some counters were made wrong. The repairs have a beginning of their own
each, as those of a schedule have: were each begun when the last had ended, then the faster the product, the more it
would disturb. The reading session tells what the machine's cores have to do with it. Each run ends clean, but for
counters that were made wrong after its comparison and those that were locked; otherwise the load fails.
"""

import multiprocessing
import os
import random
import re
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recon_pipeline.core.database_url import for_libpq
from recon_pipeline.faces.benchmark.recorder import pgbench
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.reconciliation.billing import Billing, connected
from recon_pipeline_tests.simulation import pipeline
from recon_pipeline_tests.simulation.pipeline import RunOptions
from recon_pipeline_tests.simulation.unexplained import CREATE_SABOTAGE, SABOTAGE, noting_verifications, unexplained

CUSTOMERS, HOT = 2_000, 1.1
"""How many customers there are, and the exponent of the Zipf distribution that says how hot the hottest are."""

_SCRIPT = rf"""\set customer random_zipfian(1, {CUSTOMERS}, {HOT})
select record_billing_usage_event(
    'stripe', 'customer_' || lpad((:customer - 1)::text, 4, '0'), 'remote_commands', gen_random_uuid()::text,
    '2025-05-01 00:00Z', '2025-06-01 00:00Z', 1, '2025-05-10 00:00Z'
);
"""
DRIFTED = 300
"""Counters made wrong before each repair of everything."""

MOST_ROUNDS = 20
"""Of a load that goes on until it has done enough."""

REPAIR_EVERY_SECONDS = 1.0
"""How often such a repair begins, unless they follow one another without a pause."""

_WRONG = """
    select count(*)
    from (select gateway_customer_id, sum(quantity) as used from billing_usage_events group by 1) as event
    full join billing_usage_counters as counter using (gateway_customer_id)
    where used is distinct from usage_count
"""
_READ = "select sum(quantity), max(request_id) from (select * from billing_usage_events limit 100000) as part"
_RATE = re.compile(r"tps = ([0-9.]+)")


@dataclass(frozen=True)
class Round:
    """What the application saw in one round.

    Attributes:
        calls_per_second: Of the recorder.
        p99_ms: 99 of 100 calls were as fast.
        longest_ms: The slowest call.
    """

    calls_per_second: float
    p99_ms: float
    longest_ms: float


@dataclass(frozen=True)
class Load:
    """What a load came to.

    Attributes:
        without: Rounds with the application alone.
        beside: Rounds beside the product.
        beside_reader: Rounds beside a session that reads, where those were asked for.
        runs: Runs of the product that ended, by how they ended.
        repairs: Counters repaired meanwhile.
        wrong: Counters that are not their event sums at the end, after one more run.
    """

    without: tuple[Round, ...]
    beside: tuple[Round, ...]
    beside_reader: tuple[Round, ...]
    runs: dict[str, int]
    repairs: int
    wrong: int

    def ratio(self, of: str, rounds: tuple[Round, ...]) -> float:
        """Of a figure of some rounds to that of those alone; medians."""
        return _median(rounds, of) / _median(self.without, of)


def run_load(
    billing: Billing,
    *,
    rounds: int,
    seconds: int,
    full: bool = False,
    without_pause: bool = False,
    with_reader: bool = False,
    compares: bool = True,
    drifted: int = DRIFTED,
    clients: int = 4,
    least_runs: int = 0,
    least_repairs: int = 0,
) -> Load:
    """Let the application record at full speed, in turns without and beside the product.

    Args:
        billing: A fresh database.
        rounds: Of each kind.
        seconds: How long each takes.
        full: The repairs of everything take their sums from the log itself.
        without_pause: They follow one another without a pause.
        with_reader: Also beside a session that reads.
        compares: Also without the product; else only half as long is recorded before all rounds.
        drifted: Counters made wrong before each repair of everything.
        clients: Sessions of the application.
        least_runs: Rounds beside the product go on until so many runs have ended, however slow the machine is.
        least_repairs: And until so many counters were repaired.
    """
    alone: list[Round] = []
    beside: list[Round] = []
    beside_reader: list[Round] = []
    # So that all find the counters made and the caches warm.
    _record(billing.url, seconds if compares else seconds // 2, clients)
    billing.query(CREATE_SABOTAGE)
    database = BillingDatabase(billing.url, keeps_connection=True)
    _run(database, RunOptions())
    # As autovacuum leaves them, only sooner.
    billing.connection.execute("vacuum analyze billing_usage_events, billing_usage_counters")
    for _ in range(rounds):
        if compares:
            alone.append(_record(billing.url, seconds, clients))
        with _product(billing.url, full, 0 if without_pause else REPAIR_EVERY_SECONDS, drifted):
            beside.append(_record(billing.url, seconds, clients))
            while len(beside) < MOST_ROUNDS and not _have_ended(billing, least_runs, least_repairs):
                beside.append(_record(billing.url, seconds, clients))
        if with_reader:
            with _reader(billing.url):
                beside_reader.append(_record(billing.url, seconds, clients))
    _run(database, RunOptions())
    database.close()
    runs = dict(billing.query("select outcome, count(*)::int from recon.reconciliation_run group by 1 order by 1"))
    repairs = billing.value("select count(*) from recon.counter_repair")
    wrong = billing.value(_WRONG)
    return Load(tuple(alone), tuple(beside), tuple(beside_reader), runs, repairs, wrong)


def _have_ended(billing: Billing, runs: int, repairs: int) -> bool:
    return (
        billing.value("select count(*) from recon.reconciliation_run where outcome <> 'running'") >= runs
        and billing.value("select count(*) from recon.counter_repair") >= repairs
    )


def _median(rounds: tuple[Round, ...], what: str) -> float:
    return statistics.median(getattr(one, what) for one in rounds)


def _record(url: str, seconds: int, clients: int) -> Round:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "record.sql"
        script.write_text(_SCRIPT)
        options = ["-n", "-M", "prepared", "-c", str(clients), "-j", "1", "-T", str(seconds), "-l"]
        done = subprocess.run(
            [pgbench(), *options, "--log-prefix", f"{folder}/log", "-f", str(script), for_libpq(url)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        latencies = sorted(
            int(line.split()[2]) for log in Path(folder).glob("log.*") for line in log.read_text().splitlines()
        )
    found = _RATE.search(done.stdout)
    assert found is not None, done.stdout
    return Round(float(found[1]), latencies[len(latencies) * 99 // 100] / 1_000, latencies[-1] / 1_000)


@contextmanager
def _product(url: str, full: bool, every_seconds: float, drifted: int) -> Iterator[None]:
    """The product at work in two processes, as two daemons started by mistake would be."""
    processes = multiprocessing.get_context("spawn")
    stop = processes.Event()
    ready = processes.Barrier(3)
    working = [
        processes.Process(target=_tick, args=(url, stop, ready)),
        processes.Process(target=_repair_all, args=(url, stop, ready, full, every_seconds, drifted)),
    ]
    for one in working:
        one.start()
    ready.wait(60)
    try:
        yield
    finally:
        stop.set()
        for one in working:
            one.join(60)
    assert [one.exitcode for one in working] == [0, 0], "a process of the product's failed"


@contextmanager
def _reader(url: str) -> Iterator[None]:
    """A session that reads part of the log, locks nothing and begins anew when it has ended."""
    stop = threading.Event()
    reading = threading.Thread(target=_read, args=(url, stop))
    reading.start()
    try:
        yield
    finally:
        stop.set()
        reading.join(60)


def _read(url: str, stop: threading.Event) -> None:
    with connected(url, autocommit=True) as connection:
        while not stop.is_set():
            connection.execute(_READ)


def _tick(url: str, stop: Any, ready: Any) -> None:
    database = BillingDatabase(url, keeps_connection=True)
    ready.wait(60)
    while not stop.wait(1):
        _run(database, RunOptions())
    database.close()


def _repair_all(url: str, stop: Any, ready: Any, full: bool, every_seconds: float, drifted: int) -> None:
    database = BillingDatabase(url, keeps_connection=True)
    choices = random.Random(os.getpid())  # noqa: S311 - not a secret
    with connected(url, autocommit=True, options="-c synchronous_commit=off") as saboteur:
        ready.wait(60)
        begins = time.monotonic()
        while not stop.wait(max(begins - time.monotonic(), 0)):
            # Each in a transaction of its own, so that nobody waits because of the saboteur.
            for number in choices.sample(range(CUSTOMERS), drifted):
                saboteur.execute(SABOTAGE, (f"customer_{number:04d}",))
            _run(database, RunOptions(full=full))
            begins += every_seconds
    database.close()


def _run(database: BillingDatabase, asked: RunOptions) -> None:
    """One run, which is clean but for counters that were made wrong after its comparison, or locked."""
    with noting_verifications() as noted:
        ended = pipeline.run(database, asked)
    assert ended.outcome in ("clean", "not_clean"), ended
    assert [unexplained(database, answer) for answer in noted] == [[]], ended
