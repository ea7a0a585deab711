"""What `recon parity` shows: where Stripe's meters differ from the log, as the last comparisons found it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from pathlib import Path
from typing import Any

from rich.table import Table
from sqlalchemy import Connection

from recon_pipeline.core.errors import ReconError, one_line
from recon_pipeline.core.exact import EXACT
from recon_pipeline.core.parity.classes import MEANING, DifferenceClass
from recon_pipeline.core.parity.metering import Metering, Price, metered
from recon_pipeline.core.periods import BillingMonth, instant_in_words, require_known
from recon_pipeline.core.scope import Extent, MeteredUsage
from recon_pipeline.faces.billing import billing_database
from recon_pipeline.faces.console import EXIT_CLEAN, EXIT_NOT_CLEAN, out
from recon_pipeline.faces.finance_file import Kind, require_writable, write_rows
from recon_pipeline.settings import Settings, known_months
from recon_pipeline.store.parity import found as store
from recon_pipeline.store.parity.found import ClassTotal, Coverage, DifferenceFound, OddKey
from recon_pipeline.store.parity.months import SealedParity, sealed_parity
from recon_pipeline.store.parity.sharing import compared_together
from recon_pipeline.store.records.customers import require_known_customers

ROWS_SHOWN = 20
_NUMBERS = ("units", "log_units", "provider_units", "amount")
_INSTANTS = ("window_start", "window_end", "period_start", "period_end", "compared_at")
_COLUMNS = {
    name: Kind.NUMBER if name in _NUMBERS else Kind.INSTANT if name in _INSTANTS else Kind.TEXT
    for name in (*(field.name for field in fields(DifferenceFound)), "amount", "currency")
}


@dataclass(frozen=True)
class Parity:
    """What was found.

    Attributes:
        coverage: How far the keys were compared.
        classes: The differences by usage and class.
        differences: All of them, the largest first.
        refused: Some of the keys whose customer was refused.
        sealed: What was recorded with the seals of months.
        prices: Of a unit, by usage type.
    """

    coverage: Coverage
    classes: tuple[ClassTotal, ...]
    differences: tuple[DifferenceFound, ...]
    refused: tuple[OddKey, ...]
    sealed: tuple[SealedParity, ...]
    prices: Mapping[str, Price]

    def amount(self, one: ClassTotal | DifferenceFound) -> tuple[Decimal, str] | None:
        """What units cost, where RECON_PRICES says it: by how much the invoice is too high.

        None where a figure is not exact: its units are those of an unknown number.
        """
        price = self.prices.get(one.usage_type)
        if price is None or one.kind == DifferenceClass.NOT_COMPARABLE:
            return None
        return EXACT.multiply(one.units, price.per_unit), price.currency

    @property
    def is_equal(self) -> bool:
        """Whether every key was compared and has no difference but those that are on their way."""
        lagging_alone = all(one.kind == DifferenceClass.LAGGING for one in self.classes)
        return lagging_alone and not self.coverage.refused and self.coverage.compared == self.coverage.keys


def find(
    settings: Settings,
    meters: Mapping[str, Metering],
    prices: Mapping[str, Price],
    *,
    customers: tuple[str, ...],
    months: tuple[BillingMonth, ...],
    output: Path | None,
) -> Parity:
    """Read what the last comparisons found; write it to a file if one is named.

    Raises:
        ConfigurationError: No meter is named, no run looks at a month, or the file cannot be written.
        ReconError: Nothing was compared yet, or the database cannot be used.
    """
    first, current = known_months()
    require_known(months, first=first, current=current)
    scope = metered(settings.scope, meters)
    require_writable(output, example="parity.csv")
    asked = (min(months), max(months)) if months else (first, current)
    with billing_database(settings).transaction() as connection:
        require_known_customers(connection, list(customers))
        extent = Extent(scope, *asked, compared_together(connection, customers) if customers else None)
        found = read(connection, extent, prices)
    if found.coverage.keys == 0:
        raise ReconError(
            "Nothing of this was compared with Stripe yet.",
            changed="Nothing was changed.",
            fix="Set RECON_STRIPE_PARITY=observe, and start the job compare_with_stripe in the UI (recon dev), or wait "
            "for its schedule.",
        )
    if output is not None:
        write_rows([asdict(one) | _money(found, one) for one in found.differences], _COLUMNS, output)
    return found


def read(connection: Connection, extent: Extent, prices: Mapping[str, Price]) -> Parity:
    """Read what was found of an extent; in a transaction."""
    return Parity(
        store.coverage(connection, extent),
        store.by_class(connection, extent),
        store.differences(connection, extent, most=None),
        store.odd_keys(connection, extent, are_refused=True),
        sealed_parity(connection, extent),
        prices,
    )


def as_json(found: Parity) -> dict[str, Any]:
    """The one object of `--json`."""
    return {
        "success": found.is_equal,
        **asdict(found.coverage),
        "classes": [asdict(one) | _money(found, one) for one in found.classes],
        "differences": [asdict(one) | _money(found, one) for one in found.differences],
        "refused_keys": [asdict(one) for one in found.refused],
        "sealed": [asdict(one) for one in found.sealed],
    }


def show(found: Parity, output: Path | None) -> None:
    """The same for a person."""
    covered = found.coverage
    out.print(
        f"{covered.compared:,} of {covered.keys:,} keys were compared with Stripe"
        + (f", the oldest comparison is of {covered.oldest:%Y-%m-%d %H:%M} UTC." if covered.oldest else "."),
        soft_wrap=True,
    )
    if covered.refused:
        _show_refused(found)
    if found.classes:
        _show_classes(found)
        _show_differences(found)
    elif found.is_equal:
        out.print("Stripe has exactly what the log says was sent.")
    elif covered.compared > covered.refused:
        out.print("Of the keys that could be compared, Stripe has exactly what the log says was sent.")
    if covered.elsewhere_count:
        out.print(
            f"{covered.elsewhere_count:,} events with {covered.elsewhere_units:,f} units have the label of another "
            "period than the one in which they were sent.",
            style="yellow",
            soft_wrap=True,
        )
    _show_sealed(found)
    if output is not None:
        out.print(f"{len(found.differences):,} differences written to {output}", markup=False, soft_wrap=True)


def exit_code(found: Parity) -> int:
    """0 if nothing differs."""
    return EXIT_CLEAN if found.is_equal else EXIT_NOT_CLEAN


def _show_refused(found: Parity) -> None:
    count = found.coverage.refused
    out.print(
        f"{count:,} keys have a customer that is refused: customer in RECON_STRIPE_METERS says where the log has it.",
        style="red",
        soft_wrap=True,
    )
    for one in found.refused:
        period = f"{instant_in_words(one.period_start)} to {instant_in_words(one.period_end)}"
        out.print(
            f"{one_line(one.gateway_customer_id)}, {one.usage_type}, {period}: {one.error}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    if count > len(found.refused):
        out.print(f"… and {count - len(found.refused):,} more.")


def _show_classes(found: Parity) -> None:
    for usage in sorted({(one.gateway_name, one.usage_type) for one in found.classes}):
        of_usage = [one for one in found.classes if (one.gateway_name, one.usage_type) == usage]
        has_price = any(found.amount(one) for one in of_usage)
        out.print(f"{MeteredUsage(*usage)}, by how much Stripe has more", style="bold", markup=False, soft_wrap=True)
        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column("class")
        for heading in ("differences", "customers", "units", *(["amount"] if has_price else [])):
            table.add_column(heading, justify="right", no_wrap=True)
        for one in of_usage:
            amount = found.amount(one)
            table.add_row(
                one.kind,
                f"{one.differences:,}",
                f"{one.customers:,}",
                f"{one.units:+,f}",
                *([f"{amount[0]:+,f} {amount[1]}" if amount else ""] if has_price else []),
            )
        out.print(table)
    for kind in dict.fromkeys(DifferenceClass(one.kind) for one in found.classes):
        out.print(f"{kind}: {MEANING[kind]}", highlight=False, soft_wrap=True)


def _show_differences(found: Parity) -> None:
    out.print("\nThe largest differences, with the hours of which they are", style="bold")
    for one in found.differences[:ROWS_SHOWN]:
        ends = instant_in_words(f"{one.window_end:%Y-%m-%d %H:%M}")
        out.print(
            f"{one_line(one.gateway_customer_id)}: {one.kind}, {one.provider_units:,f} at Stripe, {one.log_units:,f} "
            f"sent by the log\n  {one.window_start:%Y-%m-%d %H:%M} to {ends} UTC; {one.evidence}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    if len(found.differences) > ROWS_SHOWN:
        out.print(f"… and {len(found.differences) - ROWS_SHOWN:,} more: --output FILE writes all of them.")


def _show_sealed(found: Parity) -> None:
    for one in found.sealed:
        out.print(
            f"When {one.partition} of {one.usage_type} was sealed on {one.sealed_at:%Y-%m-%d %H:%M} UTC, Stripe had "
            f"{one.provider_units:,f} units, and the log {one.log_units:,f}; {one.compared_count:,} of "
            f"{one.key_count:,} keys were compared, {one.differing_count:,} differed.",
            markup=False,
            soft_wrap=True,
        )


def _money(found: Parity, one: ClassTotal | DifferenceFound) -> dict[str, str | None]:
    amount = found.amount(one)
    return {"amount": f"{amount[0]:f}" if amount else None, "currency": amount[1] if amount else None}
