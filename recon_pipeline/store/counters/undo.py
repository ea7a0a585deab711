"""Undoes the repairs of a run, while the application keeps counting.

Invariant: for each key, counter = increments by the application + sum of the ledger's deltas, before and after. Under
the counter's lock the repair's change is subtracted, as a new row of the ledger; increments since the repair stay. Each
repair is undone once (the ledger refuses a second row for it). An undo can be undone in the same way, as a run of its
own. No counter falls below 0.

Knows nothing of events: a person decides whether the repair was right. Unless repairs are paused or the customer is
held, the next run would make it again, so the undo is refused.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from recon_pipeline.core.quotas import LARGEST_BIGINT
from recon_pipeline.store.counters.chunk_limits import (
    CHUNK_IDLE_TIMEOUT_MS,
    CHUNK_LOCK_TIMEOUT_MS,
    CHUNK_STATEMENT_TIMEOUT_MS,
    COUNTER_LOCK_TIMEOUT_MS,
)
from recon_pipeline.store.counters.undo_request import UndoRequest, find_undoable, require_lasting
from recon_pipeline.store.log.row_security import see_every_row
from recon_pipeline.store.log.tables import COUNTERS
from recon_pipeline.store.postgres.database import begin
from recon_pipeline.store.postgres.errors import LOCK_CONFLICTS, first_line, is_connection_lost, sqlstate
from recon_pipeline.store.postgres.statements import labelled, statement
from recon_pipeline.store.sums.run import SAMPLE_ROWS

# The record of the repairs that a run undid.
# Binds: run_id text
_READ_UNDO = labelled("read_undo", "select * from recon.undo where run_id = :run_id")
# One row of the ledger as a person reads it.
# Binds: id bigint
_DESCRIBE_REPAIR = labelled(
    "describe_repair",
    """
    select gateway_customer_id, period_start::text as period_start, usage_delta::text as usage_delta
    from recon.counter_repair
    where id = :id
    """,
)
# Opens the record of an undo.
# Invariant: one row for each run of Dagster's; a retried step finds it open.
# Binds: customers text[], reason text, requested_by text, run_id text, undone_run_id text
_START_UNDO = labelled(
    "start_undo",
    """
    insert into recon.undo (run_id, undone_run_id, customers, reason, requested_by)
    values (:run_id, :undone_run_id, :customers, :reason, :requested_by)
    on conflict (run_id) do nothing
    """,
)


CHUNK_ROWS = 500
"""Most counters that are locked at once: some 0.1 s."""


@dataclass(frozen=True)
class NotUndone:
    """One repair that was not undone, for a person; numbers as text.

    Attributes:
        usage_count: The counter as it is.
        usage_delta: What the repair had added.
        outcome: `below_zero`, `without_counter`, `sealed`, `deferred` or `failed`.
        error: What Postgres said, or ''.
    """

    gateway_customer_id: str
    period_start: str
    usage_count: str | None
    usage_delta: str
    outcome: str
    error: str = ""


@dataclass(frozen=True)
class UndoRecord:
    """How an undo ended, in repairs; figures are None while it runs.

    Attributes:
        undone: Undone now.
        already_undone: Undone before.
        below_zero: The counter is lower than what the repair added.
        without_counter: The counter was deleted since.
        sealed: Its month is sealed.
        deferred: Another session has the counter locked.
        failed: Postgres refused.
        not_undone: At most `SAMPLE_ROWS` of the last five, as JSON objects.
    """

    run_id: str
    undone_run_id: str
    customers: list[str] | None
    reason: str
    requested_by: str
    started_at: datetime
    finished_at: datetime | None
    undone: int | None
    already_undone: int | None
    below_zero: int | None
    without_counter: int | None
    sealed: int | None
    deferred: int | None
    failed: int | None
    not_undone: list[dict[str, Any]] | None

    @property
    def left(self) -> int:
        """Repairs that should have been undone and were not."""
        return sum(
            figure or 0 for figure in (self.below_zero, self.without_counter, self.sealed, self.deferred, self.failed)
        )


def undo_repairs(connection: Connection, undo: UndoRequest) -> UndoRecord:
    """Undo repairs, chunk after chunk.

    Args:
        connection: Not in a transaction.
        undo: What is asked.

    Raises:
        ReconError: The next run would make them again; nothing was changed.
        DBAPIError: The connection was lost. Whole chunks are done, the rest is untouched.
    """
    with begin(connection):
        found = find_undoable(connection, undo)
        require_lasting(found)
        record = {"customers": list(undo.customers) or None, "reason": undo.reason, "requested_by": undo.requested_by}
        connection.execute(_START_UNDO, undo.parameters | record)
    undoer = _Undoer(connection, undo, Counter({"already_undone": found.already_undone}), [])
    undoer.run()
    with begin(connection):
        figures = {field.name: undoer.outcomes[field.name] for field in fields(UndoRecord)}
        sample = json.dumps([asdict(one) for one in undoer.sample])
        row = connection.execute(statement("finish_undo"), figures | {"run_id": undo.run_id, "not_undone": sample})
        return UndoRecord(**row.mappings().one())


def read(connection: Connection, run_id: str) -> UndoRecord | None:
    """The record of a run that undid repairs, or None if it never opened one."""
    row = connection.execute(_READ_UNDO, {"run_id": run_id}).mappings().one_or_none()
    return None if row is None else UndoRecord(**row)


@dataclass(frozen=True)
class _Undoer:
    connection: Connection
    undo: UndoRequest
    outcomes: Counter[str]
    sample: list[NotUndone]

    def run(self) -> None:
        """Undo every repair once; try those that were locked one by one at the end."""
        before, later = LARGEST_BIGINT, list[int]()
        while True:
            with begin(self.connection):
                rows = self.connection.execute(
                    statement("next_to_undo"), self.undo.parameters | {"before": before, "rows": CHUNK_ROWS}
                ).all()
            if not rows:
                break
            later += [row.id for row in rows if not row.is_first_of_key]
            later += self._chunk([row.id for row in rows if row.is_first_of_key])
            before = rows[-1].id
        for repair_id in later:
            self._one(repair_id)

    def _chunk(self, ids: Sequence[int]) -> list[int]:
        """Undo what no other session has locked; returns what has to be tried again by itself."""
        try:
            with self._begin(CHUNK_LOCK_TIMEOUT_MS):
                see_every_row(self.connection, COUNTERS)
                rows = self._lock_and_undo(ids, waits=False)
        except DBAPIError as error:
            if is_connection_lost(error):
                raise
            return list(ids)
        self._note(rows)
        return sorted(set(ids) - {row.repair_id for row in rows}, reverse=True)

    def _one(self, repair_id: int) -> None:
        """Undo one repair: wait for its counter without any other lock."""
        try:
            with self._begin(COUNTER_LOCK_TIMEOUT_MS):
                see_every_row(self.connection, COUNTERS)
                rows = self._lock_and_undo([repair_id], waits=True)
        except DBAPIError as error:
            if is_connection_lost(error):
                raise
            self._refused(
                repair_id, "deferred" if sqlstate(error) in LOCK_CONFLICTS else "failed", error=first_line(error)
            )
            return
        if rows:
            self._note(rows)
        else:
            self._refused(repair_id, "without_counter")

    def _begin(self, lock_timeout_ms: int) -> Any:
        return begin(
            self.connection,
            lock_timeout_ms=lock_timeout_ms,
            statement_timeout_ms=CHUNK_STATEMENT_TIMEOUT_MS,
            idle_timeout_ms=CHUNK_IDLE_TIMEOUT_MS,
        )

    def _lock_and_undo(self, ids: Sequence[int], *, waits: bool) -> Sequence[Any]:
        lock = statement("lock_repaired_counter" if waits else "lock_free_repaired_counters")
        locked = self.connection.execute(lock, {"ids": list(ids)}).all()
        if not locked:
            return ()
        parameters = {
            "run_id": self.undo.run_id,
            "ids": [row.repair_id for row in locked],
            "counter_ids": [row.counter_id for row in locked],
        }
        return self.connection.execute(statement("undo_locked_repairs"), parameters).all()

    def _note(self, rows: Sequence[Any]) -> None:
        """Count outcomes that are committed."""
        for row in rows:
            self.outcomes[row.outcome] += 1
            if row.outcome not in ("undone", "already_undone"):
                self._show(
                    NotUndone(row.gateway_customer_id, row.period_start, row.usage_count, row.usage_delta, row.outcome)
                )

    def _refused(self, repair_id: int, outcome: str, *, error: str = "") -> None:
        self.outcomes[outcome] += 1
        with begin(self.connection):
            row = self.connection.execute(_DESCRIBE_REPAIR, {"id": repair_id}).one()
        self._show(NotUndone(row.gateway_customer_id, row.period_start, None, row.usage_delta, outcome, error))

    def _show(self, one: NotUndone) -> None:
        if len(self.sample) < SAMPLE_ROWS:
            self.sample.append(one)
