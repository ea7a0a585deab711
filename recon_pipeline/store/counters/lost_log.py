"""The counters that would change because not one event of their metered usage is visible, for a person to see.

Such a run is blocked before it compares: what it would find is no drift, but a log that is not there.
"""

from decimal import Decimal

from sqlalchemy import Connection

from recon_pipeline.store.counters.compare import DriftedKey
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.postgres.statements import labelled
from recon_pipeline.store.sums import quality
from recon_pipeline.store.sums.run import SAMPLE_ROWS, Reconciliation

# The largest counters of an extent that are not 0, in open months.
# Invariant: values are text as Postgres prints them, so that no value is too odd to be shown.
# Index: none; the counters are few beside the log.
# Uses: in_extent_following_log.
# Binds: sample_rows bigint
_LARGEST = labelled(
    "largest_without_a_log",
    """
    select
        gateway_customer_id, usage_type, period_start::text as period_start, period_end::text as period_end,
        'orphan' as kind, usage_count::text as usage_count, '0' as event_sum,
        (-usage_count::numeric)::text as difference, null as usage_limit, '' as quota_transition, 'found' as outcome,
        '' as error
    from billing_usage_counters as counter
    where {in_extent_following_log}
        and usage_count <> 0
    order by abs(counter.usage_count::numeric) desc, gateway_customer_id, counter.period_start
    limit :sample_rows
    """,
)


def largest(connection: Connection, run: Reconciliation, tables: BillingTables) -> tuple[DriftedKey, ...]:
    """The at most `SAMPLE_ROWS` largest counters that would be set to 0; none where every usage has events.

    Args:
        connection: In a transaction that reads the tables for a decision.
        run: Whose counters are looked at.
        tables: How the tables are shaped, with the sealed months.
    """
    found = [
        DriftedKey(**row)
        for usage in quality.invisible_usages(connection, run, tables)
        for row in connection.execute(_LARGEST, run.parameters(usage, tables)).mappings()
    ]
    return tuple(sorted(found, key=lambda key: -abs(Decimal(key.difference)))[:SAMPLE_ROWS])
