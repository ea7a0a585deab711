"""The transaction in which a decision is made from the application's tables.

Invariant: the tables are locked before the first snapshot, and nothing is decided if a partition was attached since.
"""

from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy import Connection

from recon_pipeline.core.errors import PutOffError
from recon_pipeline.store.log.billing_tables import BillingTables, require_trustworthy
from recon_pipeline.store.log.row_security import see_every_row
from recon_pipeline.store.log.tables import COUNTERS, EVENTS
from recon_pipeline.store.postgres.database import (
    IDLE_TIMEOUT_MS,
    STATEMENT_TIMEOUT_MS,
    Isolation,
    begin,
)
from recon_pipeline.store.postgres.statements import labelled

# A partition that was attached after the snapshot of the transaction, or null.
# Invariant: the catalog is read at the snapshot; pg_partition_tree sees what is attached now, as do all statements
# that read the table.
# Binds: tables text[]
_ATTACHED_SINCE_SNAPSHOT = labelled(
    "attached_since_snapshot",
    """
    with recursive part as (
        select to_regclass(name)::oid as relid from unnest(cast(:tables as text[])) as name
        union all
        select inherited.inhrelid from part join pg_inherits as inherited on inherited.inhparent = part.relid
    )
    select min(tree.relid::text)
    from unnest(cast(:tables as text[])) as name
    cross join lateral pg_partition_tree(to_regclass(name)) as tree
    where tree.relid not in (select relid from part where relid is not null)
    """,
)


@contextmanager
def decision(
    connection: Connection,
    isolation: Isolation = "READ COMMITTED",
    *,
    statement_timeout_ms: int = STATEMENT_TIMEOUT_MS,
    idle_timeout_ms: int = IDLE_TIMEOUT_MS,
) -> Generator[BillingTables]:
    """A transaction that reads the application's tables for a decision, and the facts of them.

    Invariant: the tables are locked against rewriting, truncation and new policies before the first snapshot is
    taken, so that no snapshot is older than what it reads.

    Args:
        connection: Not in a transaction.
        isolation: Of the transaction.
        statement_timeout_ms: The longest that a statement may take.
        idle_timeout_ms: The longest that the transaction may wait for this process.

    Raises:
        UntrustworthyLogError: With the cause and its fix.
        PutOffError: Another session has one of the tables locked, or attached a partition since the snapshot.
    """
    known: BillingTables | None = connection.info.get(BillingTables)
    if known is None:  # the tables must be known before they can be locked
        with begin(connection):
            known = require_trustworthy(connection)
    with begin(
        connection,
        isolation,
        lock_tables=known.to_lock,
        statement_timeout_ms=statement_timeout_ms,
        idle_timeout_ms=idle_timeout_ms,
    ):
        found = require_trustworthy(connection)
        if found.reads_by_policy:
            _require_locked(known, found)
            see_every_row(connection, *found.to_lock)
        yield found
        if isolation == "REPEATABLE READ":
            _require_no_new_partition(connection)


def _require_locked(known: BillingTables, found: BillingTables) -> None:
    """Refuse tables that were created since the locks were chosen: their policies can still change."""
    if found.to_lock != known.to_lock:
        raise PutOffError(
            "The run was put off: a table of the application was created while it began.",
            fix="Nothing, the next run tries again.",
        )


def _require_no_new_partition(connection: Connection) -> None:
    """Refuse what was read if a partition came after the snapshot: its rows were seen, its increments were not."""
    attached = connection.execute(_ATTACHED_SINCE_SNAPSHOT, {"tables": [EVENTS, COUNTERS]}).scalar_one()
    if attached is not None:
        raise PutOffError(
            f"The run was put off: partition {attached} was attached while it read.",
            fix="Nothing, the next run tries again.",
        )
