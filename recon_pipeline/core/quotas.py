"""Usage limits: how much of a usage type a customer may use in a period, subscribed or not.

A repair that moves a counter across its limit blocks or unblocks a customer. Limits decide nothing else, such as
whether a counter is right. The database says which customers are subscribed, and in which period now. It says nothing
of earlier periods, so their limits are unknown.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from recon_pipeline.core.errors import ConfigurationError

LARGEST_BIGINT = 2**63 - 1
"""The most that a counter can hold."""

_EXAMPLE = 'Set it like RECON_QUOTAS={"remote_commands": {"free": 50, "paid": 10000}}.'


@dataclass(frozen=True)
class Quota:
    """The limits of one usage type, in units of usage per billing period.

    Attributes:
        free: Without a subscription that covers the period.
        paid: With a subscription that covers it and has a paid status.
    """

    free: int
    paid: int


def parse_quotas(text: str) -> Mapping[str, Quota]:
    """Read the JSON of `RECON_QUOTAS`: usage type to `{"free": n, "paid": n}`.

    Raises:
        ConfigurationError: Not JSON, not of that shape, or a limit that is not a whole number of at least 0.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"RECON_QUOTAS is not JSON: {error}.", fix=_EXAMPLE) from error
    if not isinstance(given, dict):
        raise ConfigurationError("RECON_QUOTAS is not a JSON object.", fix=_EXAMPLE)
    return {usage_type: _quota(usage_type, limits) for usage_type, limits in cast("dict[str, Any]", given).items()}


def parse_paid_statuses(text: str) -> tuple[str, ...]:
    """Read `RECON_PAID_STATUSES`: the statuses of a subscription that is paid, `status,…`, as its row spells them.

    Raises:
        ConfigurationError: No status, one that is empty, or one that no column could hold.
    """
    statuses = tuple(dict.fromkeys(status.strip() for status in text.split(",")))
    if not all(status and status.isprintable() for status in statuses):
        raise ConfigurationError(
            f"RECON_PAID_STATUSES is {text!r}, which is not a list of statuses of subscriptions.",
            fix="Set it like RECON_PAID_STATUSES=active,trialing,past_due, or unset it for active,trialing.",
        )
    return statuses


def _quota(usage_type: str, limits: Any) -> Quota:
    if not isinstance(limits, dict) or set(cast("dict[str, Any]", limits)) != {"free", "paid"}:
        raise ConfigurationError(
            f"RECON_QUOTAS must have exactly the limits free and paid for {usage_type!r}.", fix=_EXAMPLE
        )
    named = cast("dict[str, Any]", limits)
    for name, value in named.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST_BIGINT:
            raise ConfigurationError(
                f"RECON_QUOTAS gives {usage_type!r} the {name} limit {value!r}, "
                "which is not a whole number from 0 to 2^63 - 1.",
                fix=_EXAMPLE,
            )
    return Quota(free=named["free"], paid=named["paid"])
