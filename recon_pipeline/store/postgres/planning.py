"""How Postgres plans the statements that follow in a transaction, where its estimates would mislead it.

Invariant: each setting ends with the transaction, so a pooled connection is returned as it was.
"""

from sqlalchemy import Connection


def look_up_by_index(connection: Connection) -> None:
    """Find rows by index for the rest of the transaction: for statements that need few rows of many.

    The planner knows nothing of the newest rows and of a column that was just added. It then expects a third of the
    table, and would read all of it.
    """
    connection.exec_driver_sql("set local enable_seqscan = off")


def look_up_each_by_index(connection: Connection) -> None:
    """The same, with one lookup for each row: for staged events, which have no statistics."""
    look_up_by_index(connection)
    connection.exec_driver_sql("set local enable_hashjoin = off; set local enable_mergejoin = off")


def plan_as_usual(connection: Connection) -> None:
    """End `look_up_by_index`, `join_by_hash` and `sum_by_hash` within the same transaction."""
    connection.exec_driver_sql(
        "set local enable_seqscan = default; set local enable_hashjoin = default; "
        "set local enable_mergejoin = default; set local enable_nestloop = default; "
        "set local enable_sort = default; set local enable_incremental_sort = default"
    )


def sum_by_hash(connection: Connection) -> None:
    """Read extents in one pass and sum them by a hash of the keys, for the rest of the transaction.

    If the planner expects the hash to outgrow `WORK_MEM`, it would read the log by an index on periods and sort each of
    them. That takes three times as long as a pass that spills.
    """
    plan_as_usual(connection)
    connection.exec_driver_sql("set local enable_sort = off; set local enable_incremental_sort = off")


def join_by_hash(connection: Connection) -> None:
    """Join by hash for the rest of the transaction, without a lookup for each row."""
    connection.exec_driver_sql("set local enable_nestloop = off")
