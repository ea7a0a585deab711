"""Where the log may have the provider's customer."""

from collections.abc import Mapping

from sqlalchemy import Connection

from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.parity.metering import Metering
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.postgres.statements import labelled

MOST_EVENTS_READ = 1_000

# Whether the log has a column.
# Index: the catalog's.
# Binds: column_name text
_HAS_COLUMN = labelled(
    "log_has_column",
    """
    select exists (
        select
        from pg_attribute
        where attrelid = to_regclass('billing_usage_events')
            and attname = cast(:column_name as text)
            and attnum > 0
            and not attisdropped
    )
    """,
)
# The columns and fields of metadata that name one customer of Stripe's in all of the newest events of a customer.
# Invariant: what is no id of a customer of Stripe's is not read: it may be anything, and is asked of Stripe.
# Index: the events by gateway_customer_id and event_timestamp.
# Binds: customer text, gateway_name text, given text, most bigint, usage_type text
_NAMED = labelled(
    "named_customers",
    """
    select named.source, min(named.value) as value
    from (
        select to_jsonb(event) as event
        from billing_usage_events as event
        where gateway_name = :gateway_name
            and usage_type = :usage_type
            and gateway_customer_id = :customer
        order by event_timestamp desc
        limit :most
    ) as newest
    cross join lateral (
        select field.key as source, field.value
        from jsonb_each_text(newest.event) as field
        union all
        select 'metadata.' || field.key, field.value
        from jsonb_path_query(newest.event, '$.metadata ? (@.type() == "object")') as metadata
        cross join lateral jsonb_each_text(metadata) as field
    ) as named
    where named.source = :given or named.value ~ '^cus_[A-Za-z0-9_]+$'
    group by named.source
    having min(named.value) = max(named.value)
    order by named.source
    """,
)


def require_customer_column(connection: Connection, usage: MeteredUsage, metering: Metering) -> None:
    """Refuse a customer in a column that the log does not have; in a transaction.

    Raises:
        ReconError: It has no such column.
    """
    column = metering.customer.partition(".")[0]
    if not connection.execute(_HAS_COLUMN, {"column_name": column}).scalar_one():
        raise ReconError(
            f"RECON_STRIPE_METERS: customer of {usage.usage_type!r} is {metering.customer!r}, and billing_usage_events "
            f"has no column {column}.",
            fix="Name the column that has Stripe's customer: recon parity probe --customer ID finds it.",
        )


def named_customers(connection: Connection, usage: MeteredUsage, customer: str, *, given: str) -> Mapping[str, str]:
    """Where the newest events of a customer name one of Stripe's, and which; in a transaction.

    Args:
        connection: In a transaction.
        usage: Of the events.
        customer: By gateway_customer_id.
        given: The column that is taken, whatever it has.
    """
    parameters = {"gateway_name": usage.gateway_name, "usage_type": usage.usage_type, "most": MOST_EVENTS_READ}
    rows = connection.execute(_NAMED, {**parameters, "customer": customer, "given": given})
    return {row.source: row.value for row in rows}
