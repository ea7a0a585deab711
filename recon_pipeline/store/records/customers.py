"""Whether a named customer is known: a mistyped id has no counters, which would look as if all counters matched.

Invariant: a customer with a counter, a hold, a repair, a subscription or an event is known, of whatever usage. The log
is read last, and only for customers that are known from nowhere else: it may be large, and locked.
"""

from collections.abc import Sequence

from sqlalchemy import Connection

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.store.log.row_security import see_every_row
from recon_pipeline.store.log.tables import COUNTERS, EVENTS, SUBSCRIPTIONS, describe_table
from recon_pipeline.store.postgres.statements import labelled

# Those of some customers that have no counter.
# Index: counters by customer, where there is one.
# Binds: customers text[]
_WITHOUT_COUNTER = labelled(
    "customers_without_counter",
    """
    select customer
    from unnest(cast(:customers as text[])) as customer
    where not exists (select from billing_usage_counters where gateway_customer_id = customer)
    """,
)
# Those of some customers of whom schema recon knows nothing.
# Index: recon.counter_repair by customer; recon.hold is small.
# Binds: customers text[]
_WITHOUT_RECORD = labelled(
    "customers_without_record",
    """
    select customer
    from unnest(cast(:customers as text[])) as customer
    where not exists (select from recon.hold where gateway_customer_id = customer)
        and not exists (select from recon.counter_repair where gateway_customer_id = customer)
    """,
)
# Those of some customers that have no subscription.
# Index: subscriptions by customer, where there is one.
# Binds: customers text[]
_WITHOUT_SUBSCRIPTION = labelled(
    "customers_without_subscription",
    """
    select customer
    from unnest(cast(:customers as text[])) as customer
    where not exists (select from billing_subscriptions where gateway_customer_id = customer)
    """,
)
# Those of some customers that have no event.
# Index: the events by gateway_customer_id.
# Binds: customers text[]
_WITHOUT_EVENT = labelled(
    "customers_without_event",
    """
    select customer
    from unnest(cast(:customers as text[])) as customer
    where not exists (select from billing_usage_events where gateway_customer_id = customer)
    """,
)


def require_known_customers(connection: Connection, customers: Sequence[str]) -> None:
    """Refuse customers of whom nothing is known.

    Args:
        connection: In a transaction.
        customers: By gateway_customer_id; none is fine.

    Raises:
        ConfigurationError: Names them.
    """
    unknown = list(dict.fromkeys(customers))
    for table, without in (
        (COUNTERS, _WITHOUT_COUNTER),
        (None, _WITHOUT_RECORD),
        (SUBSCRIPTIONS, _WITHOUT_SUBSCRIPTION),
        (EVENTS, _WITHOUT_EVENT),
    ):
        if not unknown:
            return
        if table is not None:
            if describe_table(connection, table) is None:
                continue
            see_every_row(connection, table)
        unknown = list(connection.execute(without, {"customers": unknown}).scalars())
    if unknown:
        raise ConfigurationError(
            f"--customer {', --customer '.join(unknown)}: no counter, event or subscription has that id.",
            changed="Nothing was changed.",
            fix="Check the id (gateway_customer_id, in upper and lower case as it is stored) and DATABASE_URL.",
        )
