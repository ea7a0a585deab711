"""The pause of repairs: detection and checks go on, no counter is changed.

Invariant: when `pause_repairs` returns, no repair writes any more. It commits the pause and then waits for the chunks
that are at work. A chunk takes a shared lock and reads the pause in the statement after that: so either the pause waits
for the chunk, or the chunk sees the pause. The newest row of `recon.control` is in force; a pause ends by the
database's clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from recon_pipeline.core.errors import ReconError
from recon_pipeline.store.postgres.database import begin, limit_waits
from recon_pipeline.store.postgres.errors import is_lock_conflict
from recon_pipeline.store.postgres.planning import look_up_by_index
from recon_pipeline.store.postgres.statements import labelled, statement

# Lets one change of pauses and holds in at a time.
# Invariant: ends with the transaction, so that rows are numbered in the order in which they commit; the number is ours.
LOCK_CONTROL = labelled("lock_control", "select pg_advisory_xact_lock(720271130)")
# Records that repairs are paused, or that they go on.
# Invariant: runs in the transaction that has run lock_control; nothing is ever changed or deleted.
# Binds: acted_by text, action text, reason text, until timestamptz
_APPEND_CONTROL = labelled(
    "append_control",
    """
    insert into recon.control (action, reason, acted_by, until)
    values (:action, :reason, :acted_by, :until)
    """,
)


CHUNKS_END_MS = 15_000
"""A chunk aims at 0.2 s, and its locks end after 5 s at the latest."""

# Takes the advisory lock that chunks of repairs share.
# Invariant: ends with the transaction; the number is ours.
ENTER_CHUNK = labelled("enter_chunk", "select pg_advisory_xact_lock_shared(720271131)")
# Waits until no chunk of repairs has the advisory lock that chunks share.
_AWAIT_CHUNKS = labelled("await_chunks", "select pg_advisory_xact_lock(720271131)")


@dataclass(frozen=True)
class Pause:
    """A pause of repairs that is in force.

    Attributes:
        reason: Why.
        paused_by: Who.
        paused_at: Since when.
        until: When it ends by itself, or None if a person has to resume.
    """

    reason: str
    paused_by: str
    paused_at: datetime
    until: datetime | None

    def __str__(self) -> str:
        """For a person."""
        ends = f", until {self.until:%Y-%m-%d %H:%M} UTC" if self.until else ""
        return f"by {self.paused_by} since {self.paused_at:%Y-%m-%d %H:%M} UTC{ends}: {self.reason}"


class RepairsPausedError(Exception):
    """A person has paused repairs; raised in a transaction that has changed nothing."""

    def __init__(self, pause: Pause) -> None:
        super().__init__(f"repairs are paused {pause}")
        self.pause = pause


def read_pause(connection: Connection) -> Pause | None:
    """The pause that is in force, or None where there is none or it has ended by the database's clock."""
    row = connection.execute(statement("read_control")).one()
    return None if row.reason is None else Pause(row.reason, row.paused_by, row.paused_at, row.until)


def pause_repairs(connection: Connection, *, reason: str, paused_by: str, until: datetime | None) -> Pause | None:
    """Pause repairs, and wait until none is in progress. A pause that is in force is replaced.

    Args:
        connection: Not in a transaction.
        reason: Why.
        paused_by: Who.
        until: When the pause ends by itself, or None.

    Returns:
        The pause that was in force before, if one was.

    Raises:
        ReconError: Repairs are paused, but one that began before has not ended.
    """
    with begin(connection):
        connection.execute(LOCK_CONTROL)
        before = read_pause(connection)
        row = {"action": "pause", "reason": reason, "acted_by": paused_by, "until": until}
        connection.execute(_APPEND_CONTROL, row)
    await_chunks(connection, done="Repairs are paused")
    return before


def resume_repairs(connection: Connection, *, reason: str | None, resumed_by: str) -> Pause | None:
    """Let repairs go on; returns the pause that this ended, or None where repairs were not paused."""
    with begin(connection):
        connection.execute(LOCK_CONTROL)
        before = read_pause(connection)
        if before is not None:
            row = {"action": "resume", "reason": reason, "acted_by": resumed_by, "until": None}
            connection.execute(_APPEND_CONTROL, row)
    return before


def await_chunks(connection: Connection, *, done: str) -> None:
    """Wait until every chunk of a repair has ended that may not see yet what was just committed.

    Args:
        connection: Not in a transaction; what is to be known is committed.
        done: What was committed, for the error.

    Raises:
        ReconError: One has not ended within `CHUNKS_END_MS`.
    """
    try:
        with begin(connection, lock_timeout_ms=CHUNKS_END_MS):
            connection.execute(_AWAIT_CHUNKS)
    except DBAPIError as error:
        if not is_lock_conflict(error):
            raise
        raise ReconError(
            f"A repair that was in progress before has not ended within {CHUNKS_END_MS // 1000} s.",
            changed=f"{done}; that one repair may still write what it has begun.",
            fix="Look in pg_stat_activity for application_name = 'recon_pipeline', "
            "and end it with pg_terminate_backend.",
        ) from error


def enter_chunk(
    connection: Connection,
    run_id: str,
    ordinals: Sequence[int],
    *,
    while_paused: bool,
    lock_timeout_ms: int,
    statement_timeout_ms: int,
) -> None:
    """The first statements of a chunk of repairs: check whether it may go on, and mark those of its keys that are held.

    Args:
        connection: In the chunk's transaction, which has changed nothing and locked no row.
        run_id: Whose repair.
        ordinals: The keys of the chunk.
        while_paused: Whether a person asked for this repair although repairs are paused.
        lock_timeout_ms: For the rest of the transaction.
        statement_timeout_ms: For the rest of the transaction.

    Raises:
        RepairsPausedError: A person has paused repairs.
    """
    # Whoever pauses or places a hold commits that first and then waits for this lock (await_chunks). So either he waits
    # until this transaction has ended, or its next statement sees what he wrote. Nothing else is locked meanwhile.
    connection.execute(ENTER_CHUNK)
    look_up_by_index(connection)
    limit_waits(connection, lock_timeout_ms=lock_timeout_ms, statement_timeout_ms=statement_timeout_ms)
    row = connection.execute(statement("read_control")).one()
    if row.reason is not None and not while_paused:
        raise RepairsPausedError(Pause(row.reason, row.paused_by, row.paused_at, row.until))
    if row.has_holds:
        connection.execute(statement("mark_held"), {"run_id": run_id, "ordinals": list(ordinals)})
