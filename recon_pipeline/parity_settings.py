"""The variables of the comparison with Stripe, read apart from the rest: a typo in one of them stops no repair."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.parity.metering import Metering, Price, parse_meters, parse_prices

STRIPE_URL = "https://api.stripe.com"
DEFAULT_LAG_MINUTES = 30
MOST_LAG_MINUTES = 24 * 60

_LOOPBACK = re.compile(r"http://(127\.0\.0\.1|localhost)(:[0-9]{1,5})?")
_HTTPS = re.compile(r"https://[A-Za-z0-9.-]+(:[0-9]{1,5})?")
_KEY = re.compile(r"(rk|sk)_(test|live)_[A-Za-z0-9_]+")


@dataclass(frozen=True)
class ParitySettings:
    """What the environment says of the comparison.

    Attributes:
        observes: Whether it is made at all.
        key: The API key, which is never shown.
        url: Of Stripe's API.
        meters: How each usage type is reported.
        lag_minutes: How long an event may take from the log to the meter's sums.
    """

    observes: bool
    key: str = field(repr=False)
    url: str
    meters: Mapping[str, Metering]
    lag_minutes: int


def observes(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the log is compared with Stripe, `RECON_STRIPE_PARITY`.

    Raises:
        ConfigurationError: It is neither off nor observe.
    """
    value = environ.get("RECON_STRIPE_PARITY", "off")
    if value not in ("off", "observe"):
        raise ConfigurationError(
            f"RECON_STRIPE_PARITY is {value!r}, which is neither off nor observe.",
            fix="Set RECON_STRIPE_PARITY=observe to compare the log with Stripe's meters, or unset it.",
        )
    return value == "observe"


def read_parity(environ: Mapping[str, str] = os.environ, *, is_asked: bool = False) -> ParitySettings:
    """Read and check all of them; what is needed only with observe is not asked for without.

    Args:
        environ: The environment.
        is_asked: A person asks Stripe now, whatever RECON_STRIPE_PARITY says: the key is needed, and no meter.

    Raises:
        ConfigurationError: A variable has a value that cannot be used, or is not set; the message names it.
    """
    is_on = observes(environ)
    meters = read_meters(environ)
    if is_on and not meters and not is_asked:
        raise ConfigurationError(
            "RECON_STRIPE_PARITY is observe, and RECON_STRIPE_METERS names no meter.",
            fix='Set it like RECON_STRIPE_METERS={"remote_commands": {"meter": "mtr_123", "sends": "each"}}.',
        )
    return ParitySettings(
        observes=is_on,
        key=_key(environ, is_needed=is_on or is_asked),
        url=_url(environ),
        meters=meters,
        lag_minutes=_lag_minutes(environ),
    )


def read_meters(environ: Mapping[str, str] = os.environ) -> Mapping[str, Metering]:
    """How each usage type is reported, `RECON_STRIPE_METERS`; none without it.

    Raises:
        ConfigurationError: It cannot be used.
    """
    return parse_meters(environ.get("RECON_STRIPE_METERS", "{}"))


def read_prices(environ: Mapping[str, str] = os.environ) -> Mapping[str, Price]:
    """What a unit of each usage type costs, `RECON_PRICES`; none without it.

    Raises:
        ConfigurationError: It cannot be used.
    """
    return parse_prices(environ.get("RECON_PRICES", "{}"))


def _key(environ: Mapping[str, str], *, is_needed: bool) -> str:
    key = environ.get("STRIPE_API_KEY", "")
    if not is_needed:
        return key
    kind = _KEY.fullmatch(key)
    if kind is None:
        raise ConfigurationError(
            "STRIPE_API_KEY is not a key of Stripe: those begin with rk_ or sk_."
            if key
            else "STRIPE_API_KEY is not set.",
            fix="Make a restricted key in Stripe's dashboard that may read billing meters and events, and set "
            "STRIPE_API_KEY to it.",
        )
    if kind[2] == "live" and environ.get("RECON_STRIPE_LIVE") != "yes":
        raise ConfigurationError(
            "STRIPE_API_KEY is a key of live mode, and RECON_STRIPE_LIVE is not yes.",
            fix="Set RECON_STRIPE_LIVE=yes to read live meters, or STRIPE_API_KEY to a key of a sandbox.",
        )
    return key


def _url(environ: Mapping[str, str]) -> str:
    url = environ.get("RECON_STRIPE_URL", STRIPE_URL).rstrip("/")
    if _HTTPS.fullmatch(url) is None and _LOOPBACK.fullmatch(url) is None:
        raise ConfigurationError(
            "RECON_STRIPE_URL is neither https:// with a host, nor http:// on loopback.",
            fix=f"Unset it for {STRIPE_URL}; it is for tests.",
        )
    return url


def _lag_minutes(environ: Mapping[str, str]) -> int:
    text = environ.get("RECON_STRIPE_LAG_MINUTES", str(DEFAULT_LAG_MINUTES))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MOST_LAG_MINUTES:
        raise ConfigurationError(
            f"RECON_STRIPE_LAG_MINUTES is {text!r}, which is not a whole number from 1 to {MOST_LAG_MINUTES}.",
            fix=f"Set it like RECON_STRIPE_LAG_MINUTES={DEFAULT_LAG_MINUTES}, or unset it for that default.",
        )
    return int(text)
