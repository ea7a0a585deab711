"""Customers of the log that are one customer of the provider's: its meter has one sum for all of them.

Invariant: such customers are compared together, and a difference is listed with one of them: the first by name that has
the same period. Whom the log names is known once a key was looked at; until all were, a sum may lack one of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import islice

from sqlalchemy import Connection

from recon_pipeline.core.exact import total
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.parity.sending import Sending
from recon_pipeline.store.parity.sent import Span, sent_in
from recon_pipeline.store.postgres.statements import labelled

# Notes which customer of the provider's the events of some keys name.
# Index: the primary key of recon.parity_key.
# Binds: customers text[], gateway_name text, period_ends timestamptz[], period_starts timestamptz[]
# Binds: provider_customers text[], usage_type text
_NOTE_NAMED = labelled(
    "note_provider_customers",
    """
    with named as materialized (
        select
            cast(:gateway_name as text) as gateway_name, cast(:usage_type as text) as usage_type,
            gateway_customer_id, period_start, period_end, provider_customer
        from unnest(
            cast(:customers as text[]), cast(:period_starts as timestamptz[]), cast(:period_ends as timestamptz[]),
            cast(:provider_customers as text[])
        ) as given (gateway_customer_id, period_start, period_end, provider_customer)
    )
    update recon.parity_key as key
    set provider_customer = named.provider_customer
    from named
    -- The usage comes from `named`, as in mark_parity_changed.
    where (key.gateway_name, key.usage_type, key.gateway_customer_id, key.period_start, key.period_end)
        = (named.gateway_name, named.usage_type, named.gateway_customer_id, named.period_start, named.period_end)
        and key.provider_customer is distinct from named.provider_customer
    """,
)
# The keys of all customers of the log that are one of some customers of the provider's, where these are several.
# Index: recon.parity_key by provider_customer.
# Binds: gateway_name text, provider_customers text[], usage_type text
_SHARED = labelled(
    "shared_provider_customers",
    """
    select provider_customer, gateway_customer_id, period_start, period_end
    from (
        select
            key.*,
            min(gateway_customer_id) over of_one as least,
            max(gateway_customer_id) over of_one as greatest
        from recon.parity_key as key
        where gateway_name = :gateway_name
            and usage_type = :usage_type
            and provider_customer = any(:provider_customers)
        window of_one as (partition by provider_customer)
    ) as key
    where least < greatest
    """,
)
# The customers of the log who are one customer of the provider's with some of them.
# Index: none: one pass over the keys; recon.parity_key by provider_customer.
# Binds: customers text[]
_COMPARED_TOGETHER = labelled(
    "compared_together",
    """
    select distinct other.gateway_customer_id
    from recon.parity_key as key
    join recon.parity_key as other using (gateway_name, usage_type, provider_customer)
    where key.gateway_customer_id = any(:customers)
    order by other.gateway_customer_id
    """,
)
# Marks the key with which a difference is listed.
# Index: the primary key of recon.parity_key.
# Binds: customer text, gateway_name text, news_at timestamptz, period_end timestamptz, period_start timestamptz
# Binds: usage_type text
_MARK_LISTED = labelled(
    "mark_listed_key",
    """
    update recon.parity_key
    set news_at = :news_at
    where (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
        = (:gateway_name, :usage_type, :customer, :period_start, :period_end)
    """,
)

Period = tuple[datetime, datetime]


@dataclass(frozen=True)
class Named:
    """A key of a customer of the log, and the customer of the provider's that its events name, if they do."""

    customer: str
    period: Period
    provider_customer: str | None


@dataclass(frozen=True)
class Shared:
    """Who shares a customer of the provider's with a key.

    Attributes:
        customers: Of the log, the key's own among them, by name; empty: it shares with nobody.
        listed_with: The customer with whose key of the same period differences are listed; None: with this key.
    """

    customers: tuple[str, ...] = ()
    listed_with: str | None = None


ALONE = Shared()


def shared(connection: Connection, sending: Sending, keys: Sequence[Named]) -> Mapping[tuple[str, Period], Shared]:
    """Note whom keys name, and find who shares with each; in a transaction."""
    named = [(key, key.provider_customer) for key in keys if key.provider_customer is not None]
    if not named:
        return {}
    connection.execute(
        _NOTE_NAMED,
        {
            **sending.named,
            "customers": [key.customer for key, _ in named],
            "period_starts": [key.period[0] for key, _ in named],
            "period_ends": [key.period[1] for key, _ in named],
            "provider_customers": [provider_customer for _, provider_customer in named],
        },
    )
    customers: dict[str, set[str]] = {}
    first: dict[tuple[str, Period], str] = {}
    asked = {"provider_customers": sorted({provider_customer for _, provider_customer in named})}
    for row in connection.execute(_SHARED, {**sending.named, **asked}):
        customers.setdefault(row.provider_customer, set()).add(row.gateway_customer_id)
        of_period = row.provider_customer, (row.period_start, row.period_end)
        first[of_period] = min(first.get(of_period, row.gateway_customer_id), row.gateway_customer_id)
    found: dict[tuple[str, Period], Shared] = {}
    for key, provider_customer in named:
        if provider_customer in customers:
            listed_with = first[provider_customer, key.period]
            found[key.customer, key.period] = Shared(
                tuple(sorted(customers[provider_customer])), None if listed_with == key.customer else listed_with
            )
    return found


def compared_together(connection: Connection, customers: Sequence[str]) -> tuple[str, ...]:
    """Some customers, and all with whom they are compared; in a transaction. A difference is listed with any one."""
    found = connection.execute(_COMPARED_TOGETHER, {"customers": list(customers)}).scalars()
    return tuple(dict.fromkeys((*customers, *found)))


def sent_together(
    connection: Connection, tables: BillingTables, sending: Sending, keys: Sequence[Named], *, until: datetime
) -> tuple[Decimal, ...]:
    """What was sent in the window of each key by all customers with whom it is compared; in a decision."""
    sharing = shared(connection, sending, keys)
    together = [sharing.get((key.customer, key.period), ALONE).customers or (key.customer,) for key in keys]
    spans = [
        Span.of_period(customer, *key.period, until)
        for key, customers in zip(keys, together, strict=True)
        for customer in customers
    ]
    found = iter(sent_in(connection, tables, sending, spans, settled_before=None))
    return tuple(total(one.log.units for one in islice(found, len(customers))) for customers in together)


def mark_listed(connection: Connection, sending: Sending, customer: str, period: Period, *, now: datetime) -> None:
    """Let the key be compared with which a difference is listed; in a transaction."""
    named = {**sending.named, "customer": customer, "period_start": period[0], "period_end": period[1]}
    connection.execute(_MARK_LISTED, {**named, "news_at": now})
