"""Whether a pooler gives a connection another session of the server for each transaction.

Our transactions work with that. A build outside a transaction does not: it lifts the limits of its session, and the
pooler could then give this session to another application.
"""

from typing import Any, cast

from sqlalchemy import Connection

from recon_pipeline.core.errors import ReconError
from recon_pipeline.store.postgres.database import BillingDatabase, begin
from recon_pipeline.store.postgres.statements import labelled

# The process of the server that serves this transaction.
_BACKEND = labelled("own_backend", "select pg_backend_pid()")

_ROUNDS = 8
"""Other clients of the pooler may take the session that was ours between two looks: look again."""


def require_own_session(database: BillingDatabase) -> None:
    """Refuse a pooler in transaction mode; changes nothing, not even in the session.

    Raises:
        ReconError: Two transactions of one connection may run in two sessions.
    """
    with database.connection(any_schema_version=True) as ours:
        first = _backend(ours)
        driver = cast(Any, ours.connection.driver_connection)
        if driver.info.backend_pid == first:  # the process that the server named when it was connected to
            return
        for _ in range(_ROUNDS):
            with database.connection(any_schema_version=True) as beside, begin(beside):
                # In this order: a pool of one session would let ours wait for the one beside.
                if beside.execute(_BACKEND).scalar_one() == first or _backend(ours) != first:
                    raise ReconError(
                        f"{database.name} is a pooler in transaction mode, which gives each transaction another "
                        "session of the server: limits that recon init lifts for its own would stay lifted for others.",
                        changed="Nothing was changed.",
                        fix="For recon init alone, set DATABASE_URL to the server itself or to the pooler in session "
                        "mode. Every other command works through this one.",
                    )


def _backend(connection: Connection) -> int:
    with begin(connection):
        return connection.execute(_BACKEND).scalar_one()
