"""Shows frozen records to a person as a table in Dagster's UI."""

from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any

import dagster as dg


def table(records: Sequence[Any], record_type: type[Any]) -> dg.MetadataValue[Any]:
    """A table with a column for each field of `record_type`; None is shown as an empty cell."""
    if not is_dataclass(record_type):
        raise TypeError(f"{record_type.__name__} is not a dataclass")
    columns = [dg.TableColumn(field.name, "int" if field.type is int else "string") for field in fields(record_type)]
    rows = [
        dg.TableRecord({name: "" if value is None else value for name, value in asdict(record).items()})
        for record in records
    ]
    return dg.MetadataValue.table(rows, dg.TableSchema(columns))
