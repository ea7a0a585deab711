"""How an application reports a usage type to a meter: `RECON_STRIPE_METERS`, and prices: `RECON_PRICES`."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, cast

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.scope import MeteredUsage

STRIPE = "stripe"
"""The gateway whose customers are Stripe's."""

SENDS = ("each", "hour", "day")
TIMESTAMPS = ("event_timestamp", "created_at", "period_start")
STAMPED_AT = ("start", "end")
GATEWAY_CUSTOMER = "gateway_customer_id"
MOST_FINAL_HOURS = 72
"""The longest that an invoice stays open after its period (Stripe's settings for invoices)."""

_METER = re.compile(r"mtr_[A-Za-z0-9_]{1,200}")
_CUSTOMER = re.compile(r"(metadata\.)?[A-Za-z_][A-Za-z0-9_]{0,62}")
_PRICE = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?([eE]-?[0-9])?")
_CURRENCY = re.compile(r"[A-Z]{3}")
_METERS_LIKE = 'Set it like RECON_STRIPE_METERS={"remote_commands": {"meter": "mtr_123", "sends": "each"}}.'
_PRICES_LIKE = 'Set it like RECON_PRICES={"remote_commands": {"per_unit": "0.002", "currency": "USD"}}.'


@dataclass(frozen=True)
class Metering:
    """How the application reports one usage type.

    Attributes:
        meter: The id of the meter.
        sends: `each` event, or one sum for each `hour` or `day`.
        timestamp: The column of the log from which the timestamp is taken that is sent.
        stamped_at: Whether a sum has the time at which its hour or day starts, or at which it ends.
        customer: Where the log has the provider's customer: a column, or `metadata.NAME`.
        final_hours: After how many hours the invoice of a period is final.
    """

    meter: str
    sends: str = "each"
    timestamp: str = "event_timestamp"
    stamped_at: str = "start"
    customer: str = GATEWAY_CUSTOMER
    final_hours: int = 1

    @property
    def as_sent(self) -> str:
        """All that decides which event lies in which window of which customer, as one text."""
        return " ".join((self.meter, self.sends, self.timestamp, self.stamped_at, self.customer))


@dataclass(frozen=True)
class Price:
    """What one unit of a usage type costs."""

    per_unit: Decimal
    currency: str


def parse_meters(text: str) -> Mapping[str, Metering]:
    """Read `RECON_STRIPE_METERS`: usage type to how it is reported.

    Raises:
        ConfigurationError: It cannot be used, with the part that is wrong.
    """
    given = _object(text, "RECON_STRIPE_METERS", _METERS_LIKE)
    meters = {usage_type: _metering(usage_type, one) for usage_type, one in given.items()}
    first = dict[str, str]()
    for usage_type, metering in meters.items():
        other = first.setdefault(metering.meter, usage_type)
        if other != usage_type:
            raise ConfigurationError(
                f"RECON_STRIPE_METERS: {other!r} and {usage_type!r} have the same meter {metering.meter}, which has "
                "one sum for both.",
                fix="Give each usage type a meter of its own, or leave these usage types out: they cannot be compared.",
            )
    return meters


def parse_prices(text: str) -> Mapping[str, Price]:
    """Read `RECON_PRICES`: usage type to the price of a unit; a text, so that it is exact.

    Raises:
        ConfigurationError: It cannot be used, with the part that is wrong.
    """
    return {
        usage_type: _price(usage_type, one) for usage_type, one in _object(text, "RECON_PRICES", _PRICES_LIKE).items()
    }


def metered(scope: Sequence[MeteredUsage], meters: Mapping[str, Metering]) -> tuple[MeteredUsage, ...]:
    """The metered usages of a scope that are reported to a meter of Stripe's, at least one.

    Raises:
        ConfigurationError: There is none, so that a comparison would find everything equal.
    """
    found = tuple(usage for usage in scope if usage.gateway_name == STRIPE and usage.usage_type in meters)
    if not found:
        raise ConfigurationError(
            "RECON_STRIPE_METERS names no meter of a usage in RECON_SCOPE, which has "
            f"{', '.join(map(str, scope)) or 'nothing'}.",
            fix=_METERS_LIKE,
        )
    return found


def is_customer(name: str) -> bool:
    """Whether a name can be a column of the log, or a field of its column metadata."""
    return _CUSTOMER.fullmatch(name) is not None


def as_setting(meters: Mapping[str, Metering]) -> str:
    """The same as `RECON_STRIPE_METERS` says it, without what is a default anyway, but for how and when is sent."""
    return json.dumps({usage_type: _as_given(metering) for usage_type, metering in meters.items()})


def _as_given(metering: Metering) -> dict[str, str | int]:
    always = ("meter", "sends", "timestamp")
    defaults = Metering(metering.meter)
    given = asdict(metering)
    return {name: value for name, value in given.items() if name in always or value != getattr(defaults, name)}


def _metering(usage_type: str, given: Any) -> Metering:
    allowed = {
        "sends": SENDS,
        "timestamp": TIMESTAMPS,
        "stamped_at": STAMPED_AT,
    }
    known = {"meter", "customer", "final_hours", *allowed}
    if not isinstance(given, dict) or "meter" not in given or not set(cast("dict[str, Any]", given)) <= known:
        raise ConfigurationError(
            f"RECON_STRIPE_METERS: {usage_type!r} must have a meter, and may have "
            f"{', '.join(sorted(known - {'meter'}))}.",
            fix=_METERS_LIKE,
        )
    named = cast("dict[str, Any]", given)
    for name, values in allowed.items():
        if named.get(name, values[0]) not in values:
            raise _wrong(usage_type, name, named[name], " or ".join(values))
    if not isinstance(named["meter"], str) or _METER.fullmatch(named["meter"]) is None:
        raise _wrong(usage_type, "meter", named["meter"], "the id of a meter, as mtr_123")
    customer = named.get("customer", GATEWAY_CUSTOMER)
    if not isinstance(customer, str) or not is_customer(customer):
        raise _wrong(usage_type, "customer", customer, "a column of the log or metadata.NAME")
    hours = named.get("final_hours", 1)
    if not isinstance(hours, int) or isinstance(hours, bool) or not 1 <= hours <= MOST_FINAL_HOURS:
        raise _wrong(usage_type, "final_hours", hours, f"a whole number from 1 to {MOST_FINAL_HOURS}")
    return Metering(**named)


def _wrong(usage_type: str, name: str, value: Any, needed: str) -> ConfigurationError:
    return ConfigurationError(
        f"RECON_STRIPE_METERS: {name} of {usage_type!r} is {value!r}, which is not {needed}.", fix=_METERS_LIKE
    )


def _price(usage_type: str, given: Any) -> Price:
    named = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    per_unit, currency = named.get("per_unit"), named.get("currency")
    is_price = isinstance(per_unit, str) and _PRICE.fullmatch(per_unit) is not None
    is_currency = isinstance(currency, str) and _CURRENCY.fullmatch(currency) is not None
    if set(named) != {"per_unit", "currency"} or not is_price or not is_currency:
        raise ConfigurationError(
            f"RECON_PRICES: {usage_type!r} must have per_unit, a price written as a text like 0.002, and currency, "
            "three capitals.",
            fix=_PRICES_LIKE,
        )
    return Price(Decimal(cast("str", per_unit)), cast("str", currency))


def _object(text: str, variable: str, like: str) -> dict[str, Any]:
    try:
        given = json.loads(text, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{variable} is not JSON: {error}.", fix=like) from error
    if not isinstance(given, dict):
        raise ConfigurationError(f"{variable} is not a JSON object.", fix=like)
    return cast("dict[str, Any]", given)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; a name that is there twice would hide one of its values."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found
