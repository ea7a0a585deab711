"""The latest run that decided on a counter: it shows whether a customer's drift waits for a person."""

from sqlalchemy import Connection

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.postgres.statements import labelled
from recon_pipeline.store.records import runs
from recon_pipeline.store.records.runs import RunRecord

# The latest run that covered one key of a customer, ended, and was not dry, paused or put off.
# Index: recon.reconciliation_run by start, backwards.
# Binds: customer text, partition text, usage text
_LATEST_RUN_OF_KEY = labelled(
    "latest_run_of_key",
    """
    select run_id
    from recon.reconciliation_run
    where outcome not in ('running', 'compared', 'put_off', 'paused')
        and :usage = any(scope)
        and :partition between first_partition and last_partition
        and (customers is null or :customer = any(customers))
    order by started_at desc
    limit 1
    """,
)


def latest_of_key(connection: Connection, customer: str, usage: MeteredUsage, month: BillingMonth) -> RunRecord | None:
    """The record of that run, or None if there is none yet.

    Args:
        connection: In a transaction.
        customer: By gateway_customer_id.
        usage: Of the key.
        month: Of the key's period.
    """
    asked = {"customer": customer, "usage": str(usage), "partition": month.key}
    run_id = connection.execute(_LATEST_RUN_OF_KEY, asked).scalar_one_or_none()
    return None if run_id is None else runs.read(connection, run_id)
