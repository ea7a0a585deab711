"""A process whose children run the product and kill themselves before a given statement.

Run as `python -m recon_pipeline_tests.simulation.victim`. For each line `URL NTH MODE` on its standard input a child is
forked, so that nothing has to be imported again; it answers with the statement before which the child was killed, or
with how the run ended and how many statements and commits it had.
"""

import os
import signal
import sys
from dataclasses import dataclass

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from recon_pipeline.store.counters import repair
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.simulation import pipeline
from recon_pipeline_tests.simulation.pipeline import COMMIT, RunOptions
from recon_pipeline_tests.support.plans import planned_once

ENDED = "ended"
CHUNK_KEYS = 4


@dataclass
class Deadly:
    """Kills its own process before the nth statement or commit."""

    nth: int
    boundaries: int = 0

    def before_statement(self, connection: Connection, statement: pipeline.Statement) -> None:
        """One more."""
        self._count(statement.name)

    def before_commit(self, connection: Connection) -> None:
        """One more."""
        self._count(COMMIT)

    def at_error(self, error: DBAPIError) -> None:
        """Nothing goes wrong before the end."""

    def _count(self, name: str) -> None:
        self.boundaries += 1
        if self.boundaries == self.nth:
            print(name, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)


def run(url: str, nth: int, mode: str) -> None:
    """One run, in the child."""
    repair.CHUNK_KEYS = CHUNK_KEYS
    database, deadly = planned_once(BillingDatabase(url, keeps_connection=True)), Deadly(nth)
    pipeline.steer(database, deadly)
    ended = pipeline.run(database, RunOptions(full=mode == "full", approve_reason="a test"))
    print(ENDED, ended.outcome, deadly.boundaries, flush=True)


def main() -> None:
    """Fork a child for each line."""
    for line in sys.stdin:
        url, nth, mode = line.split()
        child = os.fork()
        if child == 0:
            try:
                run(url, int(nth), mode)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        print("gone", flush=True)


if __name__ == "__main__":
    main()
