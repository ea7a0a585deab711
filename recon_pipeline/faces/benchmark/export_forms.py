"""The rows of an export as other programs write them: under other names, nested, or among many columns.

Each form comes with the mapping that a person would write for it, and with the table and the statement that take it in
by hand.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

_MANY = 30
"""Columns beside ours in a row with many."""

_NAMES = ("account", "reference", "units", "time", "billed_from", "billed_to", "device")
_NOTES = tuple(f"note_{number:03}" for number in range(_MANY))
_GIVEN = {"gateway_name": {"value": "stripe"}, "usage_type": {"value": "remote_commands"}}
_MAPPED = {
    **_GIVEN,
    "gateway_customer_id": "account",
    "request_id": "reference",
    "quantity": {"column": "units", "default": 1},
    "event_timestamp": "time",
    "period_start": "billed_from",
    "period_end": "billed_to",
}
_NESTED = {
    **_GIVEN,
    "gateway_customer_id": "data.object.customer",
    "request_id": "id",
    "quantity": {"column": "data.object.usage.0.units", "default": 1},
    "event_timestamp": "time",
    "period_start": "data.object.period.start",
    "period_end": "data.object.period.end",
    "metadata": "data.object.device",
}


@dataclass(frozen=True)
class Form:
    """One way to write the rows.

    Attributes:
        name: As it is printed.
        file_name: Of the export.
        mapping: For `recon backfill-events --mapping`.
        write: Writes the rows, each under the names of the log's columns, to a file.
        columns: Of the table that takes the file in by hand.
        options: Of its COPY.
        insert: The statement that inserts from it.
    """

    name: str
    file_name: str
    mapping: Mapping[str, Any]
    write: Callable[[Iterator[Mapping[str, str]], Path], None]
    columns: str
    options: str
    insert: str

    def export(self, source: Path, folder: Path) -> tuple[Path, Path]:
        """Write the rows of a CSV in this form; returns the export and the file of its mapping."""
        exported, mapping = folder / self.file_name, folder / f"{self.file_name}.yaml"
        with source.open(newline="") as rows:
            self.write(csv.DictReader(rows), exported)
        mapping.write_text(yaml.safe_dump(dict(self.mapping)))
        return exported, mapping


def _csv(rows: Iterator[Mapping[str, str]], exported: Path, *, others: Sequence[str] = ()) -> None:
    with exported.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*others, *_NAMES])
        for row in rows:
            ours = (
                row["gateway_customer_id"], row["request_id"], row["quantity"], row["event_timestamp"],
                row["period_start"], row["period_end"], row["device"],
            )  # fmt: skip
            writer.writerow([*(f"{name} {row['quantity']}" for name in others), *ours])


def _ndjson(rows: Iterator[Mapping[str, str]], exported: Path) -> None:
    with exported.open("w") as file:
        for row in rows:
            event = {
                "id": row["request_id"],
                "type": "usage.recorded",
                "time": row["event_timestamp"],
                "data": {
                    "object": {
                        "customer": row["gateway_customer_id"],
                        "usage": [{"units": int(row["quantity"])}],
                        "period": {"start": row["period_start"], "end": row["period_end"]},
                        "device": {"id": row["device"]},
                    }
                },
            }
            file.write(json.dumps(event) + "\n")


def _as_text(names: Sequence[str]) -> str:
    return ", ".join(f"{name} text" for name in names)


FORMS = (
    Form(
        "CSV with a mapping",
        "mapped.csv",
        _MAPPED,
        _csv,
        columns=_as_text(_NAMES),
        options="format csv, header",
        insert="insert_mapped_events",
    ),
    Form(
        f"CSV with a mapping and {_MANY} columns more",
        "wide.csv",
        _MAPPED,
        partial(_csv, others=_NOTES),
        columns=_as_text((*_NOTES, *_NAMES)),
        options="format csv, header",
        insert="insert_mapped_events",
    ),
    Form(
        "nested NDJSON with a mapping",
        "nested.ndjson",
        _NESTED,
        _ndjson,
        columns="event jsonb",
        # One column, and nothing in it that is taken for the end of a cell or for a quote.
        options=r"format csv, delimiter e'\x02', quote e'\x01'",
        insert="insert_nested_events",
    ),
)
