"""The environment, read once: every variable of the product, its default, and the errors of its values.

Defaults are the safe choice. Each error names its variable and shows how to set it; no value that can hold a secret
is shown.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from recon_pipeline.core.alert_targets import AlertTarget, parse_alert_urls
from recon_pipeline.core.database_url import DatabaseUrlError, for_libpq
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.event_identity import EventIdentity, parse_event_identity
from recon_pipeline.core.guards import Budgets
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.quotas import LARGEST_BIGINT, Quota, parse_paid_statuses, parse_quotas
from recon_pipeline.core.scope import MeteredUsage, parse_scope

DEFAULT_SCOPE = "stripe:remote_commands"
DEFAULT_QUOTAS = '{"remote_commands": {"free": 50, "paid": 10000}}'
DEFAULT_PAID_STATUSES = "active,trialing"
DEFAULT_NEGATIVE_QUANTITIES = "refuse"
DEFAULT_DELETED_EVENTS = "refuse"
DEFAULT_START_PERIOD = "2025-01"
DEFAULT_EVENT_IDENTITY = "gateway_name,request_id"
RECENT_DAYS = 35
"""A period stays in every tick for this long after it ended: late events are common, very late ones rare."""

_WEB_PAGE = re.compile(r"https?://[^\s/@]+(/[^\s@]*)?")
_NAME = re.compile(r"(?=.{1,30}\Z)[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*")

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class Settings:
    """The settings that the environment gives.

    Attributes:
        database_url: The billing database, or None for the embedded one.
        scope: What is reconciled.
        start_period: Earlier periods are never touched.
        settle_seconds: Longest time an event may be visible before its increment, in seconds.
        event_identity: The columns of the log that name an event.
        quotas: Limits by usage type; a type without an entry has no limit.
        paid_statuses: With which a subscription gives its customer the paid limit.
        refuses_negative: A drifted counter with an event of negative quantity is left alone; else these are credits.
        refuses_deleted: So is one with an event that the log marks as deleted; else such events count.
        budgets: The largest repair that needs no approval.
        seal_after_days: So many days after its end the schedule seals a month; 0: only a person seals one.
    """

    database_url: str | None = field(repr=False)
    scope: tuple[MeteredUsage, ...]
    start_period: BillingMonth
    settle_seconds: int
    event_identity: EventIdentity
    quotas: Mapping[str, Quota]
    paid_statuses: tuple[str, ...]
    refuses_negative: bool
    refuses_deleted: bool
    budgets: Budgets
    seal_after_days: int


@dataclass(frozen=True)
class Alerting:
    """The settings of alerts; read apart from the rest, so that a typo in an address stops no repair.

    Attributes:
        targets: Who gets a message when something fails.
        ui_url: Where people reach Dagster's UI, without a slash at its end; '' if that is not known.
    """

    targets: tuple[AlertTarget, ...]
    ui_url: str


def read_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read and check every variable.

    Raises:
        ConfigurationError: A variable has a value that cannot be used; the message names it.
    """
    default = Budgets()
    _require_text(environ)
    return Settings(
        database_url=_database_url(environ),
        scope=parse_scope(environ.get("RECON_SCOPE", DEFAULT_SCOPE)),
        start_period=read_start_period(environ),
        settle_seconds=_number(environ, "RECON_SETTLE_SECONDS", int, 0, 86_400),
        event_identity=parse_event_identity(environ.get("RECON_EVENT_IDENTITY", DEFAULT_EVENT_IDENTITY)),
        quotas=parse_quotas(environ.get("RECON_QUOTAS", DEFAULT_QUOTAS)),
        paid_statuses=parse_paid_statuses(environ.get("RECON_PAID_STATUSES", DEFAULT_PAID_STATUSES)),
        refuses_negative=_refuses(
            environ, "RECON_NEGATIVE_QUANTITIES", DEFAULT_NEGATIVE_QUANTITIES, "events of negative quantity are credits"
        ),
        refuses_deleted=_refuses(
            environ, "RECON_DELETED_EVENTS", DEFAULT_DELETED_EVENTS, "events that are marked as deleted count"
        ),
        budgets=Budgets(
            max_repairs=_number(environ, "RECON_MAX_REPAIRS", int, default.max_repairs),
            max_repair_share=_number(environ, "RECON_MAX_REPAIR_SHARE", float, default.max_repair_share, 1),
            max_orphan_share=_number(environ, "RECON_MAX_ORPHAN_SHARE", float, default.max_orphan_share, 1),
            max_over_quota_transitions=_number(
                environ, "RECON_MAX_OVER_QUOTA_TRANSITIONS", int, default.max_over_quota_transitions
            ),
            max_events_left=_number(environ, "RECON_MAX_EVENTS_LEFT", int, default.max_events_left),
        ),
        seal_after_days=_number(environ, "RECON_SEAL_AFTER_DAYS", int, 0, 3_650),
    )


def read_alerting(environ: Mapping[str, str] = os.environ) -> Alerting:
    """Read and check what alerts need.

    Raises:
        ConfigurationError: An address cannot be used; the message names its variable and place, and shows none of it.
    """
    _require_text(environ)
    return Alerting(ui_url=read_ui_url(environ), targets=parse_alert_urls(environ.get("RECON_ALERT_URLS", "")))


def read_ui_url(environ: Mapping[str, str] = os.environ) -> str:
    """Where people reach Dagster's UI, `RECON_UI_URL`, without a slash at its end; '' if that is not known.

    Raises:
        ConfigurationError: It is not the address of a web page.
    """
    url = environ.get("RECON_UI_URL", "").rstrip("/")
    if url and _WEB_PAGE.fullmatch(url) is None:
        raise ConfigurationError(
            "RECON_UI_URL is not the address of a web page, or it contains a login.",
            fix="Set it like RECON_UI_URL=https://dagster.example.com, or unset it.",
        )
    return url


def read_name(environ: Mapping[str, str] = os.environ) -> str:
    """The name of this installation in a Dagster that it shares with others of its kind, `RECON_NAME`; '' for none.

    Raises:
        ConfigurationError: Dagster could not use it in a name.
    """
    name = environ.get("RECON_NAME", "")
    if name and _NAME.fullmatch(name) is None:
        raise ConfigurationError(
            f"RECON_NAME is {name!r}, which is not a letter followed by letters, digits and single _, 30 in all.",
            fix="Set it like RECON_NAME=eu, or unset it if no other installation is in this Dagster.",
        )
    return name


def start_period_is_declared(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether `RECON_START_PERIOD` is set: earlier events and counters are then left out on purpose."""
    return bool(environ.get("RECON_START_PERIOD"))


def read_start_period(environ: Mapping[str, str] = os.environ) -> BillingMonth:
    """The first billing month, `RECON_START_PERIOD`.

    Raises:
        ConfigurationError: It is not of the form `YYYY-MM`, or no month from 1970 to the current one.
    """
    try:
        month = BillingMonth.parse(environ.get("RECON_START_PERIOD", DEFAULT_START_PERIOD))
    except ConfigurationError as error:
        raise ConfigurationError(f"RECON_START_PERIOD: {error.what}", fix=error.fix) from error
    current = BillingMonth.containing(datetime.now(UTC))
    if not BillingMonth(1970, 1) <= month <= current:
        raise ConfigurationError(
            f"RECON_START_PERIOD is {month.key}, which lies before 1970-01 or in the future.",
            fix=f"Set it to the month of your first billing period, {current.key} or earlier.",
        )
    return month


def known_months(environ: Mapping[str, str] = os.environ) -> tuple[BillingMonth, BillingMonth]:
    """The first billing month, `RECON_START_PERIOD`, and the current one: runs look at these and all between.

    Raises:
        ConfigurationError: As `read_start_period` does.
    """
    return read_start_period(environ), BillingMonth.containing(datetime.now(UTC))


def _require_text(environ: Mapping[str, str]) -> None:
    """Refuse bytes that are not UTF-8: Postgres could not store them, and no message could show them."""
    for name, value in environ.items():
        if name == "DATABASE_URL" or name.startswith("RECON_"):
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ConfigurationError(
                    f"{name} holds a character that is not UTF-8.",
                    fix=f"Set {name} again from a UTF-8 terminal or file; in a URL, write the character as %XX.",
                ) from None


def _database_url(environ: Mapping[str, str]) -> str | None:
    url = environ.get("DATABASE_URL")
    if not url:
        return None
    try:
        return for_libpq(url)
    except DatabaseUrlError as error:
        raise ConfigurationError(
            f"DATABASE_URL cannot be used: {error}",
            fix="Set it like DATABASE_URL=postgresql://user:password@host:5432/database.",
        ) from None


def _refuses(environ: Mapping[str, str], name: str, default: str, summed_if: str) -> bool:
    value = environ.get(name, default)
    if value not in ("refuse", "sum"):
        raise ConfigurationError(
            f"{name} is {value!r}, which is neither refuse nor sum.", fix=f"Set {name}=sum if {summed_if}, or unset it."
        )
    return value == "refuse"


def _number(
    environ: Mapping[str, str], name: str, read: Callable[[str], _Number], default: _Number, cap: float = LARGEST_BIGINT
) -> _Number:
    text = environ.get(name)
    if text is None:
        return default
    try:
        value = read(text)
    except ValueError:
        value = None
    if value is None or not 0 <= value <= cap:
        raise ConfigurationError(
            f"{name} is {text!r}, which is not {'a whole number' if read is int else 'a number'} from 0 to {cap:,}.",
            fix=f"Set it like {name}={default}, or unset it for that default.",
        )
    return value
