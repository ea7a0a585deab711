"""Sessions of runs that keep the plans of what a run asks of the catalog and of its own records again and again.

The product cannot have statements prepared, as a pooler may stand before the server. What reads events or counters is
planned as ever, and so is what reads the seals, whose blocks a test counts: a test of a plan, or of time in proportion
to keys, sees the plans that users get.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from sqlalchemy import event

from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.support.postgres import is_of_session

ASKED_AGAIN = (
    "catalog_version",
    "read_runs",
    "start_run",
    "note_run",
    "log_position",
    "log_visibility",
    "read_months",
    "attached_since_snapshot",
    "missing_for_increments",
    "describe_tables",
)
_NEVER = 10**9
_PREPARED = tuple(f"/* recon:{name} */" for name in ASKED_AGAIN)


def planned_once(database: BillingDatabase) -> BillingDatabase:
    """Have each session keep the plans of `ASKED_AGAIN`: to make them anew is a quarter of what small runs cost."""

    def execute(cursor: Any, sent: str, parameters: Any, _: Any) -> bool:
        if not sent.startswith(_PREPARED):
            return False
        cursor.execute(sent, parameters, prepare=True)
        return True

    event.listen(database.engine, "do_execute", execute)
    event.listen(
        database.engine, "do_execute_no_params", lambda cursor, sent, context: execute(cursor, sent, None, context)
    )
    # Of a connection, since the product asks for no statement to be prepared.
    event.listen(database.engine, "connect", lambda session, _: setattr(session, "prepare_threshold", _NEVER))
    return database


@contextmanager
def plans_kept() -> Generator[None]:
    """The same for each database of a run on the server of the tests; a pooler is before servers of their own."""
    make = BillingDatabase.__init__

    def made(database: BillingDatabase, url: str, *, keeps_connection: bool = False, **options: Any) -> None:
        make(database, url, keeps_connection=keeps_connection, **options)
        if keeps_connection and is_of_session(url):
            planned_once(database)

    with patch.object(BillingDatabase, "__init__", made):
        yield
