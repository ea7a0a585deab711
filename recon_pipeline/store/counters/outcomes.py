"""Why drifted keys of a run were not repaired."""

from collections.abc import Sequence

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from recon_pipeline.store.counters.chunk_limits import CHUNK_STATEMENT_TIMEOUT_MS
from recon_pipeline.store.postgres.database import begin
from recon_pipeline.store.postgres.errors import LOCK_CONFLICTS, QUERY_CANCELED, first_line, sqlstate
from recon_pipeline.store.postgres.statements import labelled

# Records why keys of a run were not repaired, and which doubt of theirs was found.
# Invariant: what is on hold, doubtful or repaired stays so, but a doubt is known of it too; another outcome is that of
# an earlier attempt.
# Index: the primary key of recon.counter_drift; recon.counter_repair by drift.
# Binds: doubt text, error text, ordinals bigint[], outcome text, run_id text
_MARK_DRIFT = labelled(
    "mark_drift",
    """
    update recon.counter_drift as drift
    set
        outcome = case when outcome in ('held', 'doubtful') then outcome else :outcome end,
        error = case when outcome in ('held', 'doubtful') then error else :error end,
        doubts = recon.and_doubt(doubts, cast(:doubt as text))
    where run_id = :run_id
        and ordinal = any(:ordinals)
        and (cast(:doubt as text) is not null or coalesce(outcome not in ('held', 'doubtful'), true))
        and not exists (select from recon.counter_repair as repair where repair.drift_id = drift.id)
    """,
)

_TOO_LONG = f"its events took longer than {CHUNK_STATEMENT_TIMEOUT_MS / 1000:g} s to sum, with its counter locked"


def mark(
    connection: Connection,
    run_id: str,
    ordinals: Sequence[int],
    outcome: str,
    reason: str,
    *,
    doubt: str | None = None,
) -> None:
    """Record what became of keys, and why.

    Args:
        connection: In a transaction that has written none of their counters.
        run_id: Of the run.
        ordinals: Of the keys.
        outcome: As in `recon.counter_drift`.
        reason: For a person.
        doubt: Its name, where the outcome is `doubtful`.
    """
    marked = {"run_id": run_id, "ordinals": list(ordinals), "outcome": outcome, "error": reason, "doubt": doubt}
    connection.execute(_MARK_DRIFT, marked)


def mark_alone(
    connection: Connection,
    run_id: str,
    ordinals: Sequence[int],
    outcome: str,
    reason: str,
    *,
    doubt: str | None = None,
) -> None:
    """The same, in a transaction of its own."""
    with begin(connection):
        mark(connection, run_id, ordinals, outcome, reason, doubt=doubt)


def mark_refused(connection: Connection, run_id: str, ordinal: int, error: DBAPIError) -> None:
    """Record in a transaction of its own why Postgres refused one key."""
    reason = _TOO_LONG if sqlstate(error) == QUERY_CANCELED else first_line(error)
    mark_alone(connection, run_id, [ordinal], "deferred" if sqlstate(error) in LOCK_CONFLICTS else "failed", reason)
