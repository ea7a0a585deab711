"""A process that changes counters, and freezes itself at its first statement at which it holds one locked.

Run as `python -m recon_pipeline_tests.adversary.frozen URL repair`, or with `undo RUN_ID`. It says `holding` before it
stops itself; continued, it says how it ended.
"""

import os
import signal
import sys
from collections.abc import Callable

import psycopg
from click.testing import CliRunner
from sqlalchemy import Engine, event

from recon_pipeline.faces.cli import main as recon
from recon_pipeline.store.database import BillingDatabase
from recon_pipeline_tests.adversary.world import ANYTHING
from recon_pipeline_tests.simulation import pipeline
from recon_pipeline_tests.simulation.pipeline import Asked

_LOCKED = """
    select (select count(*) from billing_usage_counters) - (select count(*) from (
        select from billing_usage_counters for no key update skip locked
    ) as free)
"""
HOLDING, ENDED = "holding", "ended"


def counters_locked(url: str) -> bool:
    """Whether anybody holds a counter."""
    with psycopg.connect(url) as connection:
        return connection.execute(_LOCKED).fetchall()[0][0] > 0


def freeze_once_holding(url: str) -> Callable[..., None]:
    """A listener to the statements of every database."""
    done: list[bool] = []

    def before(*_: object) -> None:
        if not done and counters_locked(url):
            done.append(True)
            os.write(1, f"{HOLDING}\n".encode())  # whatever a test runner makes of sys.stdout
            os.kill(os.getpid(), signal.SIGSTOP)

    return before


def main(url: str, what: str, run_id: str = "") -> None:
    """Do it."""
    event.listen(Engine, "before_cursor_execute", freeze_once_holding(url))
    event.listen(Engine, "commit", freeze_once_holding(url))
    if what == "undo":
        result = CliRunner().invoke(recon, ["undo", run_id, "--reason", "INC-1"], env={"DATABASE_URL": url})
        said = result.output + repr(result.exception)
    else:
        database = BillingDatabase(url, keeps_connection=True)
        with pipeline.settings(budgets=ANYTHING):
            ended = pipeline.run(database, Asked())
        said = f"{ended.outcome} {ended.error}"
    print(ENDED, " ".join(said.split()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
