"""The file of differences from Stripe that `recon parity --output` writes for finance."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Any

from recon_pipeline.core.backfill.round_trip import guarded
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.store.parity.found import DifferenceFound

_COLUMNS = [field.name for field in fields(DifferenceFound)] + ["amount", "currency"]
_NUMBERS = {"units", "log_units", "provider_units", "amount"}
_INSTANTS = {"window_start", "window_end", "period_start", "period_end", "compared_at"}


def write_differences(rows: Sequence[Mapping[str, Any]], output: Path) -> None:
    """Write differences as CSV, or as Parquet if the name ends so.

    Args:
        rows: Of each difference, the fields of `DifferenceFound` with `amount` and `currency`.
        output: The file.

    Raises:
        ConfigurationError: It cannot be written.
    """
    try:
        if output.suffix == ".parquet":
            _write_parquet(rows, output)
            return
        # With a byte order mark, so that a spreadsheet reads it as UTF-8.
        with output.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            texts = (["" if row[name] is None else str(row[name]) for name in _COLUMNS] for row in rows)
            writer.writerows([guarded(text) for text in of_row] for of_row in texts)
    except OSError as error:
        raise ConfigurationError(
            f"--output {output}: {error.strerror}.", changed="Nothing was written.", fix="Name another file."
        ) from error


def _write_parquet(rows: Sequence[Mapping[str, Any]], output: Path) -> None:
    """Instants and exact numbers as such; a figure that is no number has no value."""
    import pyarrow as pa  # noqa: PLC0415 - takes a while to load
    import pyarrow.parquet as pq  # noqa: PLC0415

    instant, text, number = pa.timestamp("us", "UTC"), pa.string(), pa.decimal128(38, 9)

    def column(name: str) -> Any:
        if name not in _NUMBERS:
            return pa.array([row[name] for row in rows], instant if name in _INSTANTS else text)
        exact = [None if row[name] is None else Decimal(row[name]) for row in rows]
        found = pa.array([value if value is not None and value.is_finite() else None for value in exact])
        return found.cast(number) if pa.types.is_null(found.type) else found

    pq.write_table(pa.table({name: column(name) for name in _COLUMNS}), output)
