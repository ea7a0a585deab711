"""The part of the budgets that the runs of the last 24 hours used up."""

from sqlalchemy import Connection

from recon_pipeline.core.guards import Today
from recon_pipeline.store.postgres.statements import statement
from recon_pipeline.store.sums.run import Reconciliation


def repaired_today(connection: Connection, run: Reconciliation) -> Today:
    """The repairs of other runs in the last 24 hours without an approval; in a transaction."""
    extent = run.extent
    row = connection.execute(
        statement("repaired_today"),
        {
            "run_id": run.run_id,
            "gateway_names": [usage.gateway_name for usage in extent.scope],
            "usage_types": [usage.usage_type for usage in extent.scope],
            "start": extent.start,
            "end": extent.end,
            "every_customer": extent.customers is None,
            "customers": list(extent.customers or ()),
        },
    )
    return Today(**row.mappings().one())
