"""What `ingest_xid` costs the application: its recorder at full speed with the column and without, in turns."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from recon_pipeline.core.database_url import without_password
from recon_pipeline.core.errors import ReconError
from recon_pipeline.embedded_postgres.binaries import binaries_folder
from recon_pipeline.faces.benchmark.report import Measurement
from recon_pipeline.faces.benchmark.scratch import fill, scratch_database
from recon_pipeline.store.postgres.database import BillingDatabase

WITH, WITHOUT = "recorder with ingest_xid", "recorder without ingest_xid"

MOST_EVENTS, MOST_COUNTERS = 120_000, 12_000
SECONDS = 8
_SCRIPT = r"""\set customer random(0, 1999)
select record_billing_usage_event(
    'stripe', 'cus_' || lpad(:customer::text, 7, '0'), 'remote_commands', gen_random_uuid()::text,
    '2026-06-01 00:00Z', '2026-07-01 00:00Z', 1
);
"""
_RATE = re.compile(r"tps = ([0-9.]+)")


def measure_recorder(
    url: str | None, *, events: int, counters: int, seed: int, rounds: int, seconds: int
) -> tuple[Measurement, ...]:
    """Calls per second of the recorder by four clients; each contestant has a database of its own.

    Args:
        url: Of a server on which our role may create databases; None for embedded ones.
        events: Size of the log.
        counters: Beside it.
        seed: Of everything that is random.
        rounds: How often each takes its turn.
        seconds: How long a turn takes.

    Raises:
        ReconError: There is no pgbench, or it failed.
    """
    rates: dict[str, list[float]] = {WITH: [], WITHOUT: []}
    with scratch_database(url) as plain, scratch_database(url) as increments:
        for database, with_ingest_xid in ((plain, False), (increments, True)):
            fill(
                BillingDatabase(database),
                events=events,
                counters=counters,
                seed=seed,
                with_ingest_xid=with_ingest_xid,
            )
        for _ in range(rounds):
            rates[WITHOUT].append(_calls_per_second(plain, seconds))
            rates[WITH].append(_calls_per_second(increments, seconds))
    return tuple(Measurement(name, tuple(values)) for name, values in rates.items())


def _calls_per_second(url: str, seconds: int) -> float:
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(_SCRIPT)
        script.flush()
        command = [pgbench(), "-n", "-M", "prepared", "-c", "4", "-j", "2", "-T", str(seconds), "-f", script.name]
        shown, password = without_password(url)  # every account of the machine can read a command line
        done = subprocess.run(  # noqa: S603 - no shell; the URL is one of ours
            [*command, shown], env={**os.environ, **password}, capture_output=True, text=True, check=False
        )
    found = _RATE.search(done.stdout)
    if done.returncode != 0 or found is None:
        raise ReconError(
            f"pgbench failed: {(done.stderr or done.stdout).strip()[-300:]}",
            fix="Run it by hand with the options above, or report this.",
        )
    return float(found[1])


def pgbench() -> str:
    """The program of that name: the machine's, else the embedded Postgres's.

    Raises:
        ReconError: There is none.
    """
    found = shutil.which("pgbench")
    if found is not None:
        return found
    embedded = Path(binaries_folder(18, None)) / "pgbench"
    if not embedded.exists():
        raise ReconError("There is no pgbench.", fix="apt-get install postgresql-contrib, or put it on the PATH.")
    return str(embedded)
