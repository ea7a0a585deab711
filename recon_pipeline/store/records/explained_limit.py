"""The limit of a customer's period, as far as it is known, and its source."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.core.periods import instant_in_words
from recon_pipeline.core.quotas import Quota
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.postgres.statements import statement


@dataclass(frozen=True)
class Limit:
    """The limit of the period.

    Attributes:
        units: None for a usage type without limits, or where it is unknown.
        source: Where it comes from, for a person.
        is_known: Whether it is known which limit applies, if any.
    """

    units: int | None
    source: str
    is_known: bool = True


def limit_of(
    connection: Connection, parameters: Mapping[str, Any], tables: BillingTables, quota: Quota | None
) -> Limit:
    """The limit of a customer's period, at the snapshot of the transaction.

    Args:
        connection: In a transaction.
        parameters: What `explain_subscriptions` binds, with the usage type.
        tables: How the tables are shaped.
        quota: The limits of the usage type, if it has any.
    """
    if quota is None:
        return Limit(None, f"RECON_QUOTAS has no limit for {parameters['usage_type']}")
    if not tables.has_subscriptions:
        source = "there is no table billing_subscriptions: free and paid customers cannot be distinguished"
        return Limit(None, source, is_known=False)
    found = connection.execute(statement("explain_subscriptions"), parameters).all()
    if not found:
        return Limit(quota.free, f"free: there is no subscription of {parameters['gateway_name']} for this customer")
    newest, *_ = found
    bounds = f"{instant_in_words(newest.began_at)} to {instant_in_words(newest.ends_at)}"
    shown = f"subscription {newest.status}, {bounds}"
    if newest.covers:
        return Limit(quota.paid, f"paid: {shown}")
    if newest.began_later:
        source = f"the period ended before the current one of {shown}, which says nothing of earlier ones"
        return Limit(None, source, is_known=False)
    if newest.ended_with_it:
        source = f"the period has ended, and {shown}, does not say which status it had before"
        return Limit(None, source, is_known=False)
    paid = " or ".join(parameters["paid_statuses"])
    differs = ", whose bounds in UTC are others than the period's" if newest.meets_period else ""
    return Limit(quota.free, f"free: no {paid} subscription covers the period; the latest is {shown}{differs}")
