"""The counters that would change because not one event of their metered usage is visible, for a person to see.

Such a run is blocked before it compares: what it would find is no drift, but a log that is not there.
"""

from sqlalchemy import Connection

from recon_pipeline.store.counters.compare import DriftedKey
from recon_pipeline.store.log.row_security import see_every_row
from recon_pipeline.store.log.tables import COUNTERS, EVENTS
from recon_pipeline.store.postgres.statements import labelled
from recon_pipeline.store.sums.run import SAMPLE_ROWS, Reconciliation

# The largest counters of an extent that are not 0, of metered usages without a visible event.
# Invariant: values are text as Postgres prints them, so that no value is too odd to be shown.
# Index: (usage_type, period_start, period_end) of the events, which stops at the first row; the counters are few beside
# the log.
# Binds: customers text[], end timestamptz, gateway_names text[], sample_rows bigint, start timestamptz
# Binds: usage_types text[]
_LARGEST = labelled(
    "largest_without_a_log",
    """
    select
        counter.gateway_customer_id, counter.usage_type, counter.period_start::text as period_start,
        counter.period_end::text as period_end, 'orphan' as kind, counter.usage_count::text as usage_count,
        '0' as event_sum, (-counter.usage_count::numeric)::text as difference, null as usage_limit,
        '' as quota_transition, 'found' as outcome, '' as error
    from unnest(cast(:gateway_names as text[]), cast(:usage_types as text[])) as usage (gateway_name, usage_type)
    join billing_usage_counters as counter using (gateway_name, usage_type)
    where not exists (
            select from billing_usage_events as event
            where event.gateway_name = usage.gateway_name and event.usage_type = usage.usage_type
        )
        and counter.usage_count <> 0
        and counter.period_start >= :start
        and counter.period_start < :end
        and (cast(:customers as text[]) is null or counter.gateway_customer_id = any(:customers))
    order by abs(counter.usage_count::numeric) desc, counter.gateway_customer_id, counter.period_start
    limit :sample_rows
    """,
)


def largest(connection: Connection, run: Reconciliation) -> tuple[DriftedKey, ...]:
    """The at most `SAMPLE_ROWS` largest counters that would be set to 0; none where every usage has events.

    Args:
        connection: In a transaction.
        run: Whose counters are looked at.
    """
    see_every_row(connection, EVENTS, COUNTERS)
    extent = run.extent
    asked = {
        "gateway_names": [usage.gateway_name for usage in extent.scope],
        "usage_types": [usage.usage_type for usage in extent.scope],
        "start": extent.start,
        "end": extent.end,
        "customers": None if extent.customers is None else list(extent.customers),
        "sample_rows": SAMPLE_ROWS,
    }
    return tuple(DriftedKey(**row) for row in connection.execute(_LARGEST, asked).mappings())
