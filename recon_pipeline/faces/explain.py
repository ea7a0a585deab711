"""What `recon explain` shows: for a quota denial or a suspect counter, all that is known of it. Changes nothing."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from rich.bar import Bar
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import Extent
from recon_pipeline.faces.billing import billing_database
from recon_pipeline.faces.console import out
from recon_pipeline.faces.explain_facts import (
    bursts_table,
    crossed_on,
    facts,
    period_name,
    producers_table,
    repairs_table,
)
from recon_pipeline.settings import Settings, known_months
from recon_pipeline.store.counters import holds
from recon_pipeline.store.counters.holds import Hold
from recon_pipeline.store.counters.pause import Pause, now, read_pause
from recon_pipeline.store.log.decision import decision
from recon_pipeline.store.postgres.database import STATEMENT_TIMEOUT_MS, BillingDatabase
from recon_pipeline.store.records import explain as store
from recon_pipeline.store.records.customers import require_known_customers
from recon_pipeline.store.records.explain import Explanation, Key
from recon_pipeline.store.records.retention import Retention, read_retention


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
        retention: What somebody has declared, if no run compares a key that is explained.
    """

    customer: str
    asked_at: datetime
    database: str
    keys: tuple[Key, ...]
    explanations: tuple[Explanation, ...]
    holds: tuple[Hold, ...]
    pause: Pause | None
    retention: Retention | None


def explain(settings: Settings, customer: str, month: BillingMonth | None) -> Explained:
    """Look at a customer's keys, in one snapshot.

    Raises:
        ReconError: There is nothing of this customer.
    """
    return explain_in(billing_database(settings), settings, customer, month)


def explain_in(
    database: BillingDatabase,
    settings: Settings,
    customer: str,
    month: BillingMonth | None,
    *,
    statement_timeout_ms: int = STATEMENT_TIMEOUT_MS,
) -> Explained:
    """The same in a database that is known; no statement takes longer than that.

    Raises:
        ReconError: Like `explain`.
    """
    first, last = (month, month) if month else known_months()
    with (
        database.connection() as connection,
        decision(connection, "REPEATABLE READ", statement_timeout_ms=statement_timeout_ms) as tables,
    ):
        keys = store.keys_of_customer(connection, customer, Extent(settings.scope, first, last))
        if not keys:
            require_known_customers(connection, [customer])
            raise ReconError(
                f"{customer} has neither a counter nor an event in "
                f"{', '.join(map(str, settings.scope))}, {f'month {month.key}' if month else 'in any month'}.",
                changed="Nothing was changed.",
                fix="Check the id (gateway_customer_id), the period, RECON_SCOPE and DATABASE_URL.",
            )
        wanted = keys[: store.KEYS_EXPLAINED] if month else keys[:1]
        retention = read_retention(connection)
        is_compared = retention is None or all(retention.keeps(key.period_start) for key in wanted)
        return Explained(
            customer=customer,
            asked_at=now(connection),
            database=database.name,
            keys=keys,
            explanations=tuple(
                store.explain(connection, customer, key, tables, settings.quotas, settings.paid_statuses)
                for key in wanted
            ),
            holds=tuple(one for one in holds.open_holds(connection) if one.gateway_customer_id == customer),
            pause=read_pause(connection),
            retention=None if is_compared else retention,
        )


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
    if explained.retention is not None:
        out.print(f"No run compares its counter: {explained.retention}", style="yellow", markup=False)
    for one in explained.explanations:
        _show_key(one)
    others = explained.keys[len(explained.explanations) :]
    if others:
        _table(
            "Other periods",
            ("period", "counter"),
            [(period_name(key), "no row" if key.usage_count is None else f"{key.usage_count:,}") for key in others],
        )


def _show_key(one: Explanation) -> None:
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


_NUMBERS = ("events", "usage", "total", "before", "after", "added", "counter")


def _table(title: str, headings: tuple[str, ...], rows: list[Any]) -> None:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right" if heading in _NUMBERS else "left")
    for row in rows:
        cells: list[RenderableType] = [escape(cell) if isinstance(cell, str) else cell for cell in row]
        table.add_row(*cells)
    out.print(table)
