"""Shows frozen records to a person as a table in Dagster's UI."""

from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any

import dagster as dg


def sample(name: str, records: Sequence[Any], record_type: type[Any]) -> dict[str, dg.MetadataValue[Any]]:
    """The metadata entry of that name: a table with a column for each field of `record_type` that has a value.

    What is empty only fills the page: without records there is no entry.
    """
    if not is_dataclass(record_type):
        raise TypeError(f"{record_type.__name__} is not a dataclass")
    if not records:
        return {}
    rows = [asdict(record) for record in records]
    columns = [
        dg.TableColumn(field.name, "int" if field.type is int else "string")
        for field in fields(record_type)
        if any(row[field.name] not in (None, "") for row in rows)
    ]
    shown = [dg.TableRecord({column.name: _shown(row[column.name]) for column in columns}) for row in rows]
    return {name: dg.MetadataValue.table(shown, dg.TableSchema(columns))}


def _shown(value: Any) -> str | int | float:
    """A value as a table of Dagster's takes it; an instant and an exact number as texts."""
    if value is None:
        return ""
    return value if isinstance(value, (str, int, float)) else str(value)
