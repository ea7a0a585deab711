"""The command `recon explain`: for a quota denial or a suspect counter, all that is known of it. Changes nothing."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from rich.bar import Bar
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import Extent
from recon_pipeline.faces.console import out
from recon_pipeline.settings import Settings

if TYPE_CHECKING:
    from recon_pipeline.store.counters.holds import Hold
    from recon_pipeline.store.counters.pause import Pause
    from recon_pipeline.store.records.explain import Explanation, Key


@dataclass(frozen=True)
class Explained:
    """The answer of the command.

    Attributes:
        customer: By gateway_customer_id.
        asked_at: By the database's clock.
        database: Without its password.
        keys: The customer's keys, the latest first.
        explanations: Of the latest ones.
        holds: On this customer.
        pause: Of repairs, if they are paused.
    """

    customer: str
    asked_at: datetime
    database: str
    keys: "tuple[Key, ...]"
    explanations: "tuple[Explanation, ...]"
    holds: "tuple[Hold, ...]"
    pause: "Pause | None"


def gather(settings: Settings, customer: str, month: BillingMonth | None) -> Explained:
    """Look at a customer's keys, in one snapshot.

    Raises:
        ReconError: There is nothing of this customer.
    """
    from recon_pipeline.assets.months import known_months
    from recon_pipeline.assets.reconciler import open_database
    from recon_pipeline.store.counters import holds
    from recon_pipeline.store.counters.pause import now, read_pause
    from recon_pipeline.store.log.billing_tables import require_trustworthy
    from recon_pipeline.store.records import explain as store

    first, last = (month, month) if month else known_months()
    database = open_database(settings)
    with database.transaction("REPEATABLE READ") as connection:
        tables = require_trustworthy(connection)
        keys = store.keys_of_customer(connection, customer, Extent(settings.scope, first, last))
        if not keys:
            raise ReconError(
                f"{customer} has neither a counter nor an event in "
                f"{', '.join(map(str, settings.scope))}, {f'month {month.key}' if month else 'in any month'}.",
                changed="Nothing was changed.",
                mend="Check the id (gateway_customer_id), the period, RECON_SCOPE and DATABASE_URL.",
            )
        wanted = keys[: store.KEYS_EXPLAINED] if month else keys[:1]
        return Explained(
            customer=customer,
            asked_at=now(connection),
            database=database.name,
            keys=keys,
            explanations=tuple(store.explain(connection, customer, key, tables, settings.quotas) for key in wanted),
            holds=tuple(one for one in holds.open_holds(connection) if one.gateway_customer_id == customer),
            pause=read_pause(connection),
        )


def verdict(one: "Explanation") -> str:
    """Counter and log in a sentence."""
    counter = "no row" if one.key.usage_count is None else f"{one.key.usage_count:,}"
    if one.difference == 0:
        return f"{counter}: equals the event sum"
    return f"{counter}: {abs(one.difference):,} {'above' if one.difference > 0 else 'below'} the event sum"


def facts(one: "Explanation") -> Iterator[tuple[str, str]]:
    """What is to be known of a key, a name and a sentence each; only what there is."""
    sums, limit = one.sums, one.limit
    yield "counter", verdict(one)
    yield "event sum", f"{sums.usage_count:,} in {sums.event_count:,} events"
    units = "none" if limit.units is None else f"{limit.units:,}"
    yield "limit", f"{units} ({limit.source})"
    if limit.units is not None:
        yield "quota", _quota(one.key.usage_count or 0, limit.units)
    for crossing in one.crossings:
        reached = f"reached on {crossing.day:%Y-%m-%d}" if crossing.day else "not reached"
        yield f"limit {crossing.name}", f"{crossing.units:,}: {reached}"
    if sums.late_count:
        hours = (sums.latest_by_seconds or 0) / 3600
        yield (
            "late arrivals",
            f"{sums.late_count:,} events with {sums.late_usage:,} units arrived more than an hour after they happened, "
            f"the last of them by {hours:,.1f} hours",
        )
    if sums.repeated_count:
        yield "duplicates", f"{sums.repeated_count:,} events repeat a request id; they are not counted"
    if sums.invalid_count:
        yield "invalid", f"{sums.invalid_count:,} events are invalid; they are not counted"
    if sums.outside_period_count:
        yield "outside", f"{sums.outside_period_count:,} events happened outside of their period; they are counted"


def _quota(counter: int, units: int) -> str:
    if counter >= units:
        return f"over: {counter - units:,} above the limit, so requests are denied"
    return f"{units - counter:,} left"


def period_name(key: "Key") -> str:
    """The metered usage and the period of a key, for a person."""
    return f"{key.gateway_name}:{key.usage_type}, {_instant(key.period_start)} to {_instant(key.period_end)}"


def _instant(instant: datetime) -> str:
    midnight = (instant.hour, instant.minute, instant.second) == (0, 0, 0)
    return f"{instant:%Y-%m-%d}" if midnight else f"{instant:%Y-%m-%d %H:%M:%S}"


def as_json(explained: Explained) -> dict[str, Any]:
    """The one object of `--json`."""
    return {
        **asdict(explained),
        "explanations": [asdict(one) | {"difference": one.difference} for one in explained.explanations],
    }


def show(explained: Explained) -> None:
    """The same for a person."""
    out.print(f"{explained.customer} in {explained.database}", style="bold", markup=False)
    if explained.pause is not None:
        out.print(f"Repairs are paused {explained.pause}", style="yellow", markup=False)
    for hold in explained.holds:
        out.print(
            f"Held by {hold.held_by} until {hold.until:%Y-%m-%d %H:%M} UTC, {hold.partition or 'every month'}: "
            f"{hold.reason}",
            style="yellow",
            markup=False,
        )
    for one in explained.explanations:
        _show_key(one)
    others = explained.keys[len(explained.explanations) :]
    if others:
        _table(
            "Other periods",
            ("period", "counter"),
            [(period_name(key), "no row" if key.usage_count is None else f"{key.usage_count:,}") for key in others],
        )


def _show_key(one: "Explanation") -> None:
    out.rule(escape(period_name(one.key)))
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, sentence in facts(one):
        table.add_row(name, escape(sentence))
    out.print(table)
    if one.repairs:
        _table("Repairs, the latest first", *repairs_table(one))
    if one.days:
        largest = max(day.usage_count for day in one.days)
        _table(
            "Usage by day (UTC)",
            ("day", "events", "usage", "", "total", ""),
            [
                (
                    f"{day.day:%m-%d}",
                    f"{day.event_count:,}",
                    f"{day.usage_count:,}",
                    Bar(float(largest), 0, float(day.usage_count), width=30, color="cyan"),
                    f"{day.running_total:,}",
                    crossed_on(one, day.day),
                )
                for day in one.days
            ],
        )
    if one.producers:
        _table("Usage by producer, the largest first", *producers_table(one))
    if one.bursts:
        _table("Busiest minutes (UTC)", *bursts_table(one))


def crossed_on(one: "Explanation", day: date) -> str:
    """The limits that were reached on a day."""
    return ", ".join(f"{crossing.name} limit" for crossing in one.crossings if crossing.day == day)


Rows = tuple[tuple[str, ...], list[tuple[str, ...]]]


def repairs_table(one: "Explanation") -> Rows:
    """Headings and rows."""
    return ("at (UTC)", "kind", "before", "after", "added", "run"), [
        (
            f"{repair.repaired_at:%Y-%m-%d %H:%M}",
            repair.kind,
            "no row" if repair.usage_count_before is None else f"{repair.usage_count_before:,}",
            f"{repair.usage_count_after:,}",
            f"{repair.usage_delta:+,}",
            repair.run_id[:8],
        )
        for repair in one.repairs
    ]


def producers_table(one: "Explanation") -> Rows:
    """Headings and rows."""
    return ("request ids", "device", "events", "usage", "first (UTC)", "last (UTC)"), [
        (
            producer.pattern,
            producer.device or "-",
            f"{producer.event_count:,}",
            f"{producer.usage_count:,}",
            f"{producer.first_at:%m-%d %H:%M}" if producer.first_at else "-",
            f"{producer.last_at:%m-%d %H:%M}" if producer.last_at else "-",
        )
        for producer in one.producers
    ]


def days_table(one: "Explanation") -> Rows:
    """Headings and rows."""
    return ("day", "events", "usage", "total", "limit reached"), [
        (
            f"{day.day:%Y-%m-%d}",
            f"{day.event_count:,}",
            f"{day.usage_count:,}",
            f"{day.running_total:,}",
            crossed_on(one, day.day),
        )
        for day in one.days
    ]


def bursts_table(one: "Explanation") -> Rows:
    """Headings and rows."""
    return ("minute", "events", "usage"), [
        (f"{burst.minute:%Y-%m-%d %H:%M}", f"{burst.event_count:,}", f"{burst.usage_count:,}") for burst in one.bursts
    ]


_NUMBERS = ("events", "usage", "total", "before", "after", "added", "counter")


def _table(title: str, headings: tuple[str, ...], rows: "list[Any]") -> None:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right" if heading in _NUMBERS else "left")
    for row in rows:
        cells: list[RenderableType] = [escape(cell) if isinstance(cell, str) else cell for cell in row]
        table.add_row(*cells)
    out.print(table)
