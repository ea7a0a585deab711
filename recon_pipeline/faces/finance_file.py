"""The file that `--output` writes for finance: CSV for a spreadsheet, or Parquet with exact types."""

import csv
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

from recon_pipeline.core.backfill.round_trip import guarded
from recon_pipeline.core.errors import ConfigurationError


class Kind(Enum):
    """What a column holds; in Parquet a number that is none, as NaN, has no value."""

    TEXT = "text"
    COUNT = "count"
    NUMBER = "number"
    INSTANT = "instant"


def require_writable(output: Path | None, *, example: str) -> None:
    """Refuse another ending, and a folder that is not there.

    Args:
        output: The file, if one is named.
        example: A name that would do.

    Raises:
        ConfigurationError: It cannot be written.
    """
    if output is not None and (output.suffix not in (".csv", ".parquet") or not output.parent.is_dir()):
        raise ConfigurationError(
            f"--output {output} cannot be written: it ends in .csv or .parquet, in a folder that is there.",
            changed="Nothing was written.",
            fix=f"Name it so, for example --output {example}.",
        )


def write_rows(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Kind], output: Path) -> None:
    """Write rows as CSV, or as Parquet if the name ends so; as a whole, or a file that is there stays as it was.

    Args:
        rows: Values by column; None: there is none.
        columns: In their order, with what they hold.
        output: The file.

    Raises:
        ConfigurationError: It cannot be written, or Parquet has no type for a number that is so long.
    """
    file = output.resolve()  # what a link leads to
    written = file.with_name(f".{file.name}.{secrets.token_hex(4)}.partial")
    try:
        if output.suffix == ".parquet":
            _write_parquet(_table(rows, columns, output), written)
        else:
            _write_csv(rows, columns, written)
        written.replace(file)
    except OSError as error:
        raise ConfigurationError(
            f"--output {output}: {error.strerror or error}.", changed="Nothing was written.", fix="Name another file."
        ) from error
    finally:
        with suppress(OSError):
            written.unlink(missing_ok=True)


def _write_csv(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Kind], output: Path) -> None:
    # With a byte order mark, so that a spreadsheet reads it as UTF-8.
    with output.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([guarded(_as_text(row[name])) for name in columns] for row in rows)


def _as_text(value: Any) -> str:
    """A value for a spreadsheet: a number digit by digit, since one with an exponent is a text to many."""
    if value is None:
        return ""
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def _write_parquet(table: Any, output: Path) -> None:
    import pyarrow.parquet as pq  # noqa: PLC0415 - takes a while to load

    pq.write_table(table, output)


def _table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Kind], output: Path) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - takes a while to load

    types = {Kind.TEXT: pa.string(), Kind.COUNT: pa.int64(), Kind.INSTANT: pa.timestamp("us", "UTC")}

    def column(name: str, kind: Kind) -> Any:
        values = [row[name] for row in rows]
        if kind is not Kind.NUMBER:
            return pa.array(values, types[kind])
        exact = [None if value is None else Decimal(value) for value in values]
        try:
            found = pa.array([value if value is not None and value.is_finite() else None for value in exact])
        except pa.ArrowInvalid as error:
            raise ConfigurationError(
                f"--output {output}: {name} has numbers of more digits than a column of a Parquet file holds.",
                changed="Nothing was written.",
                fix=f"Write them as CSV: --output {output.with_suffix('.csv')}",
            ) from error
        return found.cast(pa.decimal128(38, 9)) if pa.types.is_null(found.type) else found

    return pa.table({name: column(name, kind) for name, kind in columns.items()})
