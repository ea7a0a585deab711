"""What `recon parity probe` finds: how a customer's usage was sent, of all ways in which applications send it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from rich.markup import escape
from rich.table import Table

from recon_pipeline.core.errors import ConfigurationError, ReconError, one_line
from recon_pipeline.core.parity.classes import LogFigure
from recon_pipeline.core.parity.metering import GATEWAY_CUSTOMER, STRIPE, Metering, as_setting, parse_meters
from recon_pipeline.core.parity.narrowing import Sides
from recon_pipeline.core.parity.probing import Tried, try_each, ways
from recon_pipeline.core.parity.windows import Unit, Window, cut_to
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import Extent, MeteredUsage
from recon_pipeline.faces.billing import billing_database
from recon_pipeline.faces.console import EXIT_CLEAN, EXIT_NOT_CLEAN, out
from recon_pipeline.parity_settings import ParitySettings
from recon_pipeline.providers.protocol import Meters, RefusedCustomerError
from recon_pipeline.settings import Settings
from recon_pipeline.store.log.decision import decision
from recon_pipeline.store.parity.customers import named_customers
from recon_pipeline.store.parity.sending import Sending
from recon_pipeline.store.parity.sent import Span, sent_in
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.records.customers import require_known_customers

ROWS_SHOWN = 5
_NOTHING = "Nothing was changed, neither here nor at Stripe."
_SEVERAL = (
    "Nothing in what this customer used distinguishes them. Probe one with usage in more hours, or at other times."
)


@dataclass(frozen=True)
class Asked:
    """What is asked for.

    Attributes:
        customer: By gateway_customer_id.
        usage_type: None: the only one of Stripe's in the scope.
        meter: None: the one of RECON_STRIPE_METERS.
        days: How many are looked at, up to the last one that is over on both sides.
    """

    customer: str
    usage_type: str | None
    meter: str | None
    days: int


@dataclass(frozen=True)
class Probe:
    """What was found.

    Attributes:
        customer: By gateway_customer_id.
        usage_type: Of the events.
        window: Whole days.
        tried: Every way, by every customer of Stripe's that the log names; the closest first.
        refused: Where the log names a customer whom Stripe refuses, and its words.
        meters: What RECON_STRIPE_METERS says now.
    """

    customer: str
    usage_type: str
    window: Window
    tried: tuple[Tried, ...]
    refused: Mapping[str, str]
    meters: Mapping[str, Metering]

    @property
    def settings(self) -> tuple[str, ...]:
        """RECON_STRIPE_METERS as it would be right, for each way that explains the figures."""
        return tuple(as_setting({**self.meters, self.usage_type: one.metering}) for one in self.tried if one.explains)


def probe(settings: Settings, parity: ParitySettings, meters: Meters, asked: Asked, *, now: datetime) -> Probe:
    """Try every way on one customer; reads both sides, and writes to none.

    Raises:
        ConfigurationError: What is asked for is not in the scope, the log or RECON_STRIPE_METERS.
        ReconError: The meter cannot be compared, or one of both sides does not answer.
    """
    usage = _usage(settings, asked)
    metering = _metering(parity.meters, usage, asked)
    meter = meters.meter(metering.meter)
    if meter.why_not:
        raise ReconError(
            f"The meter {meter.id} cannot be compared with sums of the log: {meter.why_not}.",
            changed=_NOTHING,
            fix="Name an active meter with the formula sum and no event time window: --meter mtr_123.",
        )
    until = cut_to(now - timedelta(minutes=parity.lag_minutes), timedelta(days=1))
    window = Window(until - timedelta(days=asked.days), until)
    database = billing_database(settings)
    with database.transaction() as connection:
        require_known_customers(connection, [asked.customer])
        named = named_customers(connection, usage, asked.customer, given=metering.customer)
    tried: list[Tried] = []
    refused = dict[str, str]()
    by_customer = dict[str, tuple[Tried, ...]]()
    for column, customer in {GATEWAY_CUSTOMER: asked.customer, **named}.items():
        try:
            if customer not in by_customer:
                sides = _sides(database, usage, metering, asked.customer, meters, customer, until=until)
                by_customer[customer] = try_each(sides, window)
        except RefusedCustomerError as error:
            refused[column], by_customer[customer] = error.what, ()
        tried += [replace(one, metering=replace(one.metering, customer=column)) for one in by_customer[customer]]
    closest = tuple(sorted(tried, key=lambda one: (one.hours, one.units)))
    return Probe(asked.customer, usage.usage_type, window, closest, refused, parity.meters)


def as_json(found: Probe) -> dict[str, Any]:
    """The one object of `--json`."""
    return {
        "success": len(found.settings) == 1,
        "customer": found.customer,
        "usage_type": found.usage_type,
        "from": found.window.start,
        "to": found.window.end,
        "settings": [f"RECON_STRIPE_METERS={setting}" for setting in found.settings],
        "tried": [
            {**_in_words(one), "hours_that_differ": one.hours, "units_that_differ": one.units} for one in found.tried
        ],
        "refused": dict(found.refused),
    }


def show(found: Probe) -> None:
    """The same for a person."""
    span = f"from {found.window.start:%Y-%m-%d} to {found.window.end:%Y-%m-%d} UTC"
    for column, said in found.refused.items():
        out.print(f"{column}: {said}", style="yellow", markup=False, soft_wrap=True)
    if not found.tried:
        out.print(
            f"Stripe's meter has nothing of {escape(one_line(found.customer))} {span}: nothing can be concluded. Probe "
            "another customer, or more days (--days).",
            soft_wrap=True,
        )
        return
    if found.settings:
        count = len(found.settings)
        explains = "One way of sending explains" if count == 1 else f"{count} ways of sending explain"
        out.print(f"{explains} exactly what Stripe has {span}:", soft_wrap=True)
        for setting in found.settings:
            out.print(f"RECON_STRIPE_METERS={setting}", markup=False, soft_wrap=True)
        if count > 1:
            out.print(_SEVERAL, style="yellow", soft_wrap=True)
        return
    out.print(f"No way of sending explains what Stripe has {span}. These are the closest:", soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("sends", "timestamp", "stamped_at", "customer", "hours that differ", "units"):
        justify = "right" if heading in ("hours that differ", "units") else "left"
        table.add_column(heading, justify=justify, overflow="fold")
    for one in found.tried[:ROWS_SHOWN]:
        table.add_row(*map(escape, _in_words(one).values()), f"{one.hours:,}", f"{one.units:,f}")
    out.print(table)
    out.print(
        "If few hours differ, the closest is probably right, and something was lost or sent twice: probe another "
        "customer. If not, the application sends in another way: see how it is sent, in docs/stripe.md.",
        soft_wrap=True,
    )


def exit_code(found: Probe) -> int:
    """0 if exactly one way explains the figures."""
    return EXIT_CLEAN if len(found.settings) == 1 else EXIT_NOT_CLEAN


def _in_words(one: Tried) -> dict[str, str]:
    names = ("sends", "timestamp", "stamped_at", "customer")
    return {name: getattr(one.metering, name) for name in names}


def _usage(settings: Settings, asked: Asked) -> MeteredUsage:
    found = [
        usage
        for usage in settings.scope
        if usage.gateway_name == STRIPE and asked.usage_type in (None, usage.usage_type)
    ]
    if len(found) != 1:
        of_stripe = [usage.usage_type for usage in settings.scope if usage.gateway_name == STRIPE]
        raise ConfigurationError(
            f"RECON_SCOPE has {', '.join(of_stripe) or 'nothing'} of the gateway stripe"
            + (f", and not {asked.usage_type}." if asked.usage_type else ": which one is probed is not said."),
            changed=_NOTHING,
            fix="Name one of them with --usage-type." if of_stripe else "Set RECON_SCOPE=stripe:USAGE_TYPE.",
        )
    return found[0]


def _metering(meters: Mapping[str, Metering], usage: MeteredUsage, asked: Asked) -> Metering:
    configured = meters.get(usage.usage_type)
    if asked.meter is not None:
        given = parse_meters(json.dumps({usage.usage_type: {"meter": asked.meter}}))[usage.usage_type]
        return given if configured is None else replace(configured, meter=given.meter)
    if configured is None:
        raise ConfigurationError(
            f"RECON_STRIPE_METERS names no meter for {usage.usage_type}.",
            changed=_NOTHING,
            fix="Name it with --meter mtr_123; its id is in Stripe's dashboard.",
        )
    return configured


def _sides(
    database: BillingDatabase,
    usage: MeteredUsage,
    metering: Metering,
    customer: str,
    meters: Meters,
    of_stripe: str,
    *,
    until: datetime,
) -> Mapping[Metering, Sides]:
    """Both sides of a customer of the log and one of Stripe's, by each way of sending."""
    month = BillingMonth.containing(until)

    def total(window: Window) -> Decimal:
        return meters.total(metering.meter, of_stripe, window)

    def grouped(window: Window, unit: Unit) -> Mapping[datetime, Decimal]:
        return meters.grouped(metering.meter, of_stripe, window, unit)

    def logged_by(way: Metering) -> Callable[[Sequence[Window]], Sequence[LogFigure]]:
        def logged(windows: Sequence[Window]) -> Sequence[LogFigure]:
            sending = Sending(usage, way, Extent((usage,), month, month))
            spans = [Span(customer, window) for window in windows]
            with database.connection() as connection, decision(connection) as tables:
                return [one.log for one in sent_in(connection, tables, sending, spans, settled_before=until)]

        return logged

    return {way: Sides(total, grouped, logged_by(way)) for way in ways(metering)}
