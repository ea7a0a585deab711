"""Repairs a chunk of keys, or one key by itself, under lock.

Invariant: lock the counter row, then sum the log's own rows in a new statement, then write. A sum from before the lock
would lose the increments in between; so would one UPDATE ... FROM (SELECT sum ...), whose subquery is not run again
when a row turns out to have changed (PostgreSQL manual, 13.2.1). There is no other way to write: a comparison or an
aggregate is only a reason to check a key. A chunk that has locks waits for no other. If Postgres refuses a key, only
that key fails. The ledger alone records that a key was repaired.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from recon_pipeline.store.counters import doubt_of_identity, doubt_of_periods
from recon_pipeline.store.counters.chunk_limits import (
    CHUNK_IDLE_TIMEOUT_MS,
    CHUNK_LOCK_TIMEOUT_MS,
    CHUNK_STATEMENT_TIMEOUT_MS,
    COUNTER_LOCK_TIMEOUT_MS,
    HEAVY_KEY_TIMEOUT_MS,
    NEW_SESSIONS,
    WAITS_SECONDS,
)
from recon_pipeline.store.counters.doubt import Doubt, InDoubtError
from recon_pipeline.store.counters.final_events import sum_final_events
from recon_pipeline.store.counters.outcomes import mark_alone, mark_refused
from recon_pipeline.store.counters.pause import enter_chunk
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.log.decision import decision
from recon_pipeline.store.postgres.errors import (
    LOCK_CONFLICTS,
    QUERY_CANCELED,
    is_connection_lost,
    sqlstate,
    was_ended_while_idle,
)
from recon_pipeline.store.postgres.statements import statement
from recon_pipeline.store.sums.run import Reconciliation

Done = TypeVar("Done")


@dataclass
class Repairer:
    """Repairs the keys of one run; knows what they have waited for so far."""

    connection: Connection
    run: Reconciliation
    settled_below: int | None
    reads_notes: bool
    while_paused: bool
    clock: Callable[[], float]
    waited_seconds: float = 0.0
    chunk_began: float = 0.0
    new_sessions: int = 0
    final: dict[str, Any] | None = None

    def again_after_standstill(self, repair: Callable[[], Done]) -> Done:
        """Repair; and again if Postgres ended our session since this process stood still, which wrote nothing.

        Args:
            repair: Chunks in transactions of their own. Keys that are done are not repaired twice.
        """
        while True:
            try:
                return repair()
            except DBAPIError as error:
                seconds = self.clock() - self.chunk_began
                was_ended = was_ended_while_idle(error, seconds=seconds, limit_ms=CHUNK_IDLE_TIMEOUT_MS)
                if not was_ended or self.new_sessions == NEW_SESSIONS:
                    raise
                self.new_sessions += 1

    @contextmanager
    def chunk(
        self,
        ordinals: range,
        *,
        lock_timeout_ms: int,
        before: Callable[[BillingTables, int], None] | None = None,
    ) -> Generator[tuple[BillingTables, dict[int, str]]]:
        """The transaction of a chunk; yields those of its keys that may be repaired, with their kinds.

        If keys turn out to be doubtful, it is rolled back, and the reasons are recorded.

        Args:
            ordinals: Of the chunk.
            lock_timeout_ms: For rows and keys.
            before: Done before anything that the application writes is locked, with the first ordinal.

        Raises:
            RepairsPausedError: None may.
        """
        self.chunk_began = self.clock()
        try:
            with decision(
                self.connection, statement_timeout_ms=HEAVY_KEY_TIMEOUT_MS, idle_timeout_ms=CHUNK_IDLE_TIMEOUT_MS
            ) as tables:
                if before is not None:
                    before(tables, ordinals[0])
                enter_chunk(
                    self.connection,
                    self.run.run_id,
                    ordinals,
                    while_paused=self.while_paused,
                    lock_timeout_ms=lock_timeout_ms,
                    statement_timeout_ms=CHUNK_STATEMENT_TIMEOUT_MS,
                )
                asked = {"run_id": self.run.run_id, "first": ordinals[0], "last": ordinals[-1]}
                rows = self.connection.execute(statement("keys_to_repair"), asked)
                yield tables, {row.ordinal: row.kind for row in rows}
        except InDoubtError as found:  # and all of it is rolled back
            for doubt, of_it in found.by_doubt().items():
                mark_alone(self.connection, self.run.run_id, of_it, "doubtful", doubt.reason, doubt=doubt.name)

    def free_keys(self, ordinals: range) -> list[int]:
        """Repair the keys of a chunk that no other session has locked; returns the locked ones."""
        began = self.clock()
        try:
            wait_ms = CHUNK_LOCK_TIMEOUT_MS if self._may_wait() else 1
            with self.chunk(ordinals, lock_timeout_ms=wait_ms) as (tables, keys):
                if not keys:
                    return []
                missing = [ordinal for ordinal, kind in keys.items() if kind == "missing"]
                locked = self._lock_and_repair(tables, [*keys], "lock_free_counters", create=missing)
                return sorted(keys.keys() - locked)
        except DBAPIError as error:
            if is_connection_lost(error):
                raise
            is_locked = sqlstate(error) in LOCK_CONFLICTS
            if is_locked:
                self.waited_seconds += self.clock() - began
            if len(ordinals) > 1:
                middle = len(ordinals) // 2
                return self.free_keys(ordinals[:middle]) + self.free_keys(ordinals[middle:])
            if is_locked:
                return list(ordinals)
            if sqlstate(error) == QUERY_CANCELED:
                self.heavy_key(ordinals[0])
            else:
                mark_refused(self.connection, self.run.run_id, ordinals[0], error)
            return []
        return self.free_keys(ordinals)  # but for those that are doubtful

    def heavy_key(self, ordinal: int) -> None:
        """Repair one key with so many events that they cannot all be summed while its counter is locked.

        Its events below a horizon are final: they are summed before the lock, and the others under it. Events that are
        deleted or updated in between leave a note, and then all is rolled back. No run removes notes meanwhile, since
        the row of `recon.event_log` is locked by us.
        """
        one, noted = range(ordinal, ordinal + 1), {"run_id": self.run.run_id, "ordinal": ordinal}
        try:
            with self.chunk(one, lock_timeout_ms=COUNTER_LOCK_TIMEOUT_MS, before=self._sum_final_events) as (
                tables,
                keys,
            ):
                create = [ordinal for ordinal, kind in keys.items() if kind != "orphan"]
                self._lock_and_repair(tables, [*keys], "lock_counter", create=create)
                if self.connection.execute(statement("is_drifted_key_noted"), noted).scalar_one():
                    raise _EventsChangedError
        except _EventsChangedError:
            reason = "its events were changed while they were summed"
            mark_alone(self.connection, self.run.run_id, [ordinal], "deferred", reason)
        except DBAPIError as error:
            if is_connection_lost(error):
                raise
            mark_refused(self.connection, self.run.run_id, ordinal, error)
        finally:
            self.final = None

    def _sum_final_events(self, tables: BillingTables, ordinal: int) -> None:
        """Sum the events of one key that are final, before anything of it is locked."""
        asked = {**self._settling, "run_id": self.run.run_id, "ordinal": ordinal}
        self.final = sum_final_events(self.connection, tables, asked)
        if self.final is not None:
            doubt_of_identity.mark(self.connection, self.run.run_id, tables, [ordinal])
            if self.final["is_written_twice"]:
                doubt_of_periods.mark_found_later(self.connection, self.run.run_id, ordinal)

    def busy_key(self, ordinal: int) -> None:
        """Repair one key: wait for its lock while nothing else is locked; defer it if the lock is not free in time."""
        began, one = self.clock(), range(ordinal, ordinal + 1)
        try:
            with self.chunk(one, lock_timeout_ms=COUNTER_LOCK_TIMEOUT_MS if self._may_wait() else 1) as (tables, keys):
                create = [ordinal for ordinal, kind in keys.items() if kind != "orphan"]
                # A second time for a counter that was deleted while we waited for it: it is then given a new row.
                if keys and not any(
                    self._lock_and_repair(tables, [*keys], "lock_counter", create=create) for _ in range(2)
                ):
                    self.connection.execute(
                        statement("mark_uncountable"), {"run_id": self.run.run_id, "ordinals": [*keys]}
                    )
        except DBAPIError as error:
            if is_connection_lost(error):
                raise
            mark_refused(self.connection, self.run.run_id, ordinal, error)
        self.waited_seconds += self.clock() - began

    def _may_wait(self) -> bool:
        return self.waited_seconds < WAITS_SECONDS

    def _lock_and_repair(
        self, tables: BillingTables, ordinals: Sequence[int], lock: str, *, create: Sequence[int]
    ) -> set[int]:
        """Insert the missing counters, lock all counters that can be locked, repair these.

        Raises:
            InDoubtError: Keys that were given a row, or share an event, are doubtful; all has to be rolled back.
        """
        asked = {**tables.parameters, "run_id": self.run.run_id, "ordinals": list(ordinals)}
        if create:
            self.connection.execute(statement("create_missing_counters"), asked | {"ordinals": list(create)})
        locked = self.connection.execute(statement(lock), asked).all()
        if locked:
            sums = "locked_sums" if self.final is None else "locked_sum_from_horizon"
            ordinals = [row.ordinal for row in locked]
            doubtful = self.connection.execute(
                statement("repair_locked_counters", tables.parts, locked_sums=sums),
                {
                    **tables.parameters,
                    "run_id": self.run.run_id,
                    "refuses_negative": self.run.refuses_negative,
                    "reads_notes": self.reads_notes,
                    "ordinals": ordinals,
                    "counter_ids": [row.counter_id for row in locked],
                    **self._settling,
                    **(self.final or {}),
                },
            )
            created = {row.ordinal: Doubt(row.doubt, row.error) for row in doubtful if row.is_created_in_doubt}
            if created:
                raise InDoubtError(created)
            since = self.final["horizon"] if self.final else None
            doubt_of_identity.require_none(self.connection, self.run.run_id, tables, ordinals, horizon=since)
        return {row.ordinal for row in locked}

    @property
    def _settling(self) -> dict[str, Any]:
        below = None if self.settled_below is None else str(self.settled_below)
        return {"settle_seconds": self.run.settle_seconds, "settled_below": below}


class _EventsChangedError(Exception):
    """Events of a key were deleted or updated after they had been summed."""
