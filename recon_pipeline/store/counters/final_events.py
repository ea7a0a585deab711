"""Sums the final events of one key, to which no transaction can add, before its counter is locked."""

from typing import Any

from sqlalchemy import Connection

from recon_pipeline.store.log import ingest_xid
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.postgres.statements import statement
from recon_pipeline.store.sums import horizons
from recon_pipeline.store.sums.aggregates import is_ours_to_write


def sum_final_events(connection: Connection, tables: BillingTables, asked: dict[str, Any]) -> dict[str, Any] | None:
    """Sum the final events of a drifted key; None where they could be deleted or updated later without a note.

    Args:
        connection: In a transaction that has locked nothing of the application's but its tables.
        tables: How the tables are shaped.
        asked: Which key of which run, and what is settled.

    Returns:
        What `locked_sum_from_horizon` binds; and `is_written_twice`, whether events carry the key's period written in
        another way.
    """
    # Nothing may be lacking: a partition without triggers of its own lets events change without a note.
    lacking = ingest_xid.lacking(connection, refuses_repetitions=tables.refuses_repetitions)
    if lacking or not is_ours_to_write(connection, tables):
        return None
    horizon = {"horizon": str(horizons.position(connection, tables).oldest_transaction)}
    summed = statement("sum_of_drifted_key", tables.parts)
    row = connection.execute(summed, {**tables.parameters, **asked, **horizon}).mappings().one()
    return {**row, **horizon}
