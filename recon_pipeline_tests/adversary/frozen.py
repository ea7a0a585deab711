"""A process that freezes itself: one that changes counters at its first statement at which it holds one locked, and
one that prepares the log before it commits a step that alters it.

Run as `python -m recon_pipeline_tests.adversary.frozen URL repair`, or with `undo RUN_ID`, or `init`. It says `holding`
before it stops itself; continued, it says how it ended.
"""

import os
import signal
import sys
from collections.abc import Callable

import psycopg
from click.testing import CliRunner
from sqlalchemy import Engine, event

from recon_pipeline.faces.cli import main as recon
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.simulation import pipeline
from recon_pipeline_tests.simulation.pipeline import RunOptions

_LOCKED = """
    select (select count(*) from billing_usage_counters) - (select count(*) from (
        select from billing_usage_counters for no key update skip locked
    ) as free)
"""
HOLDING, ENDED = "holding", "ended"


def counters_locked(url: str) -> bool:
    """Whether any session has locked a counter."""
    with psycopg.connect(url) as connection:
        return connection.execute(_LOCKED).fetchall()[0][0] > 0


def freeze_once_holding(url: str) -> Callable[..., None]:
    """A listener to the statements of every database."""
    done: list[bool] = []

    def before(*_: object) -> None:
        if not done and counters_locked(url):
            done.append(True)
            freeze()

    return before


def freeze_before_a_step_is_committed() -> None:
    """Once, after the first statement that alters a table."""
    sent: list[str] = []
    done: list[bool] = []

    def before_commit(_: object) -> None:
        if not done and sent and sent[-1].startswith("alter table"):
            done.append(True)
            freeze()

    event.listen(Engine, "before_cursor_execute", lambda *given: sent.append(given[2]))
    event.listen(Engine, "commit", before_commit)


def freeze() -> None:
    """Until somebody lets it go on."""
    os.write(1, f"{HOLDING}\n".encode())  # whatever a test runner makes of sys.stdout
    os.kill(os.getpid(), signal.SIGSTOP)


def main(url: str, what: str, run_id: str = "") -> None:
    """Do it."""
    if what == "init":
        freeze_before_a_step_is_committed()
    else:
        freeze_once = freeze_once_holding(url)
        event.listen(Engine, "before_cursor_execute", freeze_once)
        event.listen(Engine, "commit", freeze_once)
    commands = {"undo": ["undo", run_id, "--reason", "INC-1"], "init": ["init"]}
    if what in commands:
        result = CliRunner().invoke(recon, commands[what], env={"DATABASE_URL": url})
        said = result.output + repr(result.exception)
    else:
        database = BillingDatabase(url, keeps_connection=True)
        ended = pipeline.run(database, RunOptions())
        said = f"{ended.outcome} {ended.error}"
    print(ENDED, " ".join(said.split()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
