"""The parameters of statements that read a customer's limit (`subscribed_keys`)."""

from collections.abc import Sequence
from typing import Any

from recon_pipeline.core.quotas import Quota


def limit_parameters(quota: Quota | None, paid_statuses: Sequence[str], *, has_subscriptions: bool) -> dict[str, Any]:
    """The parameters of the limits of one usage type.

    Args:
        quota: Its limits, or None if it has none.
        paid_statuses: With which a subscription gives its customer the paid limit.
        has_subscriptions: Whether there is a table of subscriptions; without it no limit is known.
    """
    return {
        "limits_known": quota is not None and has_subscriptions,
        "limit_free": quota.free if quota else None,
        "limit_paid": quota.paid if quota else None,
        "paid_statuses": list(paid_statuses),
    }
