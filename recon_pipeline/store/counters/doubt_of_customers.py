"""A counter that was moved to another customer without its events, as where an application renames or merges customers.

Invariant: neither of the two keys is touched, since only the owner knows whose usage it is. What shows it: a counter
that was there when its month was verified is gone, and another one of the same period has just as much too much. A
counter that never was, because its increments were lost, is no such trace. Both keys must be in one run.
"""

from sqlalchemy import Connection

from recon_pipeline.store.counters.remembered_doubt import UNDER_TWO_CUSTOMERS
from recon_pipeline.store.postgres.statements import statement


def mark(connection: Connection, run_id: str) -> None:
    """Make the drifted keys of a run doubtful between which a counter was moved without its events.

    Args:
        connection: In the transaction of the comparison, after it.
        run_id: Of the run.
    """
    connection.execute(statement("mark_usage_under_two_customers"), {"run_id": run_id, "doubt": UNDER_TWO_CUSTOMERS})
