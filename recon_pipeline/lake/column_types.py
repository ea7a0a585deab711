"""Refuses files whose columns have types that an engine would read as one, and lose digits or zones by it.

Invariant: of a decimal of 38 digits and another with more digits after the point DuckDB makes one that rounds; a time
without a zone beside times with one it takes for one of UTC. What holds all values of all files is no error.
"""

import re
from collections.abc import Mapping, Sequence

from recon_pipeline.core.backfill.fields import UNIX_FORMATS
from recon_pipeline.core.backfill.mapping import MappingSpec
from recon_pipeline.lake.files import uncountable
from recon_pipeline.lake.mapped import UTC_NAMES

_MOST_DIGITS = 38
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")
_DIGITS = {"TINYINT": 3, "SMALLINT": 5, "INTEGER": 10, "BIGINT": 19, "HUGEINT": 38,
           "UTINYINT": 3, "USMALLINT": 5, "UINTEGER": 10, "UBIGINT": 20}  # fmt: skip
_WITH_ZONE = "TIMESTAMP WITH TIME ZONE"


def require_common_types(types: Mapping[str, Sequence[str]], spec: MappingSpec) -> None:
    """Refuse columns that no type holds as all files have them.

    Args:
        types: Of each column that the mapping names, those that the files have, as DuckDB calls them.
        spec: The mapping.

    Raises:
        ConfigurationError: Names the first such column.
    """
    quantity = spec.quantity.column
    if quantity is not None and _is_rounded(types.get(quantity, ())):
        _refuse("quantity", quantity, types, "no type holds the digits of all of them")
    for name, field in (
        ("period_start", spec.period_start),
        ("period_end", spec.period_end),
        ("event_timestamp", spec.event_timestamp),
    ):
        if field is None or field.format in UNIX_FORMATS or field.zone in UTC_NAMES:
            continue
        found = types.get(field.column, ())
        if _WITH_ZONE in found and len(found) > 1:
            _refuse(name, field.column, types, "some have no zone, and the mapping does not say zone: UTC")


def _is_rounded(types: Sequence[str]) -> bool:
    decimals = [(int(found[1]), int(found[2])) for found in map(_DECIMAL.fullmatch, types) if found]
    before = max([digits - after for digits, after in decimals] + [_DIGITS.get(one, 0) for one in types], default=0)
    return bool(decimals) and len(types) > 1 and before + max(after for _, after in decimals) > _MOST_DIGITS


def _refuse(name: str, column: str, types: Mapping[str, Sequence[str]], why: str) -> None:
    raise uncountable(
        f"{name} is read from the column {column} of the lake, which is {', '.join(types[column])} in different files: "
        f"{why}.",
        fix="Write the column alike in all files, with the program that writes the lake; or leave files out by skip: "
        "in the mapping.",
    )
