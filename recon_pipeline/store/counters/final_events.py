"""Sums the final events of one key, to which no transaction can add, before its counter is locked."""

from decimal import Decimal
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.store.log import ingest_xid
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.postgres.statements import labelled, statement
from recon_pipeline.store.sums import horizons
from recon_pipeline.store.sums.aggregates import is_ours_to_write

# The period of one drifted key, as Postgres prints it.
# Binds: ordinal bigint, run_id text
_PERIOD_OF_DRIFTED_KEY = labelled(
    "period_of_drifted_key",
    """
    select period_start::text as period_start, period_end::text as period_end
    from recon.counter_drift
    where run_id = :run_id and ordinal = :ordinal
    """,
)


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
    period = connection.execute(_PERIOD_OF_DRIFTED_KEY, asked).one()
    summed = statement("sum_events", tables.parts, which_events="events_of_drifted_key")
    kept = {"kept_as": None, "compared_with": None, "covers_until": None, "with_checksums": False}
    rows = connection.execute(summed, {**tables.parameters, **asked, **horizon, **kept}).all()
    own = next((row for row in rows if (row.period_start, row.period_end) == tuple(period)), None)
    return {
        "final_visible": own.visible if own else "0",
        "final_settled": own.settled if own else "0",
        "final_negatives": own.negative_count if own else 0,
        "is_written_twice": sum(Decimal(row.sum_now) for row in rows if row is not own) != 0,
        **horizon,
    }
