"""The default mapping: columns that have the names of the log's columns. Nothing is guessed.

Invariant: a column that may be one of ours under another name is an error, never ignored, because ignoring it would
change what is billed. It does not matter in which row a column first occurs.
"""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import NoReturn

import yaml

from recon_pipeline.core.backfill.cells import is_there
from recon_pipeline.core.backfill.columns import Row, Unreadable
from recon_pipeline.core.backfill.mapping import NOTHING_INSERTED, MappingSpec, parse_mapping, shown_columns
from recon_pipeline.core.errors import ConfigurationError

NEEDED = ("gateway_name", "gateway_customer_id", "usage_type", "request_id", "quantity", "event_timestamp")
_OPTIONAL = ("period_start", "period_end", "metadata")
_OTHER_WORDS = {
    "quantity": ("qty", "quantities", "units", "unit", "count", "usage", "amount", "value"),
    "gateway_customer_id": ("customer", "customerid", "stripecustomerid"),
    "gateway_name": ("gateway",),
    "usage_type": ("type", "meter", "metric", "eventname"),
    "request_id": ("requestid", "request", "id", "eventid", "idempotencykey", "messageid"),
    "event_timestamp": ("timestamp", "time", "at", "occurredat", "eventtime", "createdat"),
}
"""How exports call them, as `_bare` writes it."""
_ALWAYS_ASKED = {"qty": "quantity"}
"""Words that mean nothing else, even where ours is there too."""


def default_mapping(columns: Iterable[str], *, source: str, names_vary: bool) -> MappingSpec:
    """The mapping of an export whose columns are named as those of `billing_usage_events`.

    Args:
        columns: Of the source, or of its first rows.
        source: Its name for a person.
        names_vary: Whether each row names its own columns, so that later rows may have more.

    Raises:
        ConfigurationError: Required columns are missing, or a column looks like one of them, with the mapping to write.
    """
    there = list(dict.fromkeys(columns))
    alike = {name: ours for name in there if (ours := looks_like(name)) is not None}
    missing = [name for name in NEEDED if name not in there]
    nothing_known = names_vary and not there  # no row of the piece could be read; each says so
    if (missing or alike) and not nothing_known:
        _ask(there, missing, alike, source)
    optional = _OPTIONAL if names_vary else [name for name in _OPTIONAL if name in there]
    return parse_mapping({name: name for name in (*NEEDED, *optional)})


def looks_like(name: str) -> str | None:
    """The column of ours that a column of another name may be: in other capitals, with other separators, or `qty`."""
    bare = _bare(name)
    for ours in (*NEEDED, *_OPTIONAL):
        if bare == _bare(ours):
            return None if name == ours else ours
    return _ALWAYS_ASKED.get(bare)


def missing_columns(spec: MappingSpec, columns: Iterable[str]) -> frozenset[str]:
    """What a mapping names and the columns lack."""
    there = frozenset(columns)
    return frozenset(name for name in spec.columns if not is_there(name, there))


def may_come_later(spec: MappingSpec, missing: Iterable[str], columns: Iterable[str]) -> bool:
    """Whether missing columns may first occur in a later row: none is probably a mistake for one that is there."""
    there = [name for name in columns if name not in spec.columns]
    bare = set(map(_bare, there))
    return not any(_bare(name) in bare or get_close_matches(name, there, n=1, cutoff=0.8) for name in missing)


def no_such_columns(missing: Iterable[str], columns: Iterable[str], *, source: str) -> ConfigurationError:
    """The refusal of a mapping that names columns which the source does not have."""
    there = list(columns)
    names = ", ".join(_with_guess(name, there) for name in sorted(missing))
    return ConfigurationError(
        f"{source} has no column {names}. It has {shown_columns(there)}.",
        changed=NOTHING_INSERTED,
        fix="Fix the names in the mapping; capitals and spaces count.",
    )


def rows_to_ask_about(rows: Sequence[Row | Unreadable], known: set[str]) -> dict[int, str]:
    """Rows of varying names that have a column which looks like one of ours, by position, with the reason.

    Args:
        rows: Read with the default mapping.
        known: Names that were looked at before; new ones are added.
    """
    names = {name for row in rows if not isinstance(row, Unreadable) for name in row}
    alike = {name: ours for name in names - known if (ours := looks_like(name)) is not None}
    known |= names - alike.keys()
    if not alike:
        return {}
    return {
        index: f"its column {name!r} looks like {alike[name]}; write a mapping that says what it is"
        for index, row in enumerate(rows)
        if not isinstance(row, Unreadable)
        for name in row
        if name in alike
    }


def rows_without(spec: MappingSpec, rows: Sequence[Row | Unreadable]) -> dict[int, str]:
    """Rows of varying names that lack the column of a quantity with a default and have one like it, with the reason."""
    column = spec.quantity.column
    if spec.quantity.default is None or column is None:
        return {}
    bare = _bare(column)
    names = {name for row in rows if not isinstance(row, Unreadable) for name in row}
    alike = [name for name in names if name != column and _bare(name) == bare]
    return {
        index: f"its column {name!r} looks like {column}, so the default of quantity may be wrong for it"
        for name in alike
        for index, row in enumerate(rows)
        if not isinstance(row, Unreadable) and name in row and column not in row
    }


def _ask(there: Sequence[str], missing: Sequence[str], alike: dict[str, str], source: str) -> NoReturn:
    said = [f"its column {name!r} looks like {ours}" for name, ours in alike.items()]
    if missing:
        said.insert(0, f"it has no column {', '.join(missing)}")
    raise ConfigurationError(
        f"{source} cannot be read without a mapping: {'; '.join(said)}. It has {shown_columns(there)}.",
        changed=NOTHING_INSERTED,
        fix="Write a mapping, for example the following, check each line, and give it with --mapping FILE "
        f"(docs/replay.md shows one for each common shape):\n{_draft(there, alike)}",
    )


def _draft(there: Sequence[str], alike: dict[str, str]) -> str:
    """A draft of a mapping: columns that exist, columns that may be meant, and places that a person must fill in."""
    meant = {ours: name for name, ours in alike.items()}
    lines: dict[str, object] = {}
    for ours in (*NEEDED, *_OPTIONAL):
        words = _OTHER_WORDS.get(ours, ())
        others = (name for name in there if _bare(name) in words)
        found = meant.get(ours) or (ours if ours in there else next(others, None))
        if found is not None:
            lines[ours] = found
        elif ours in NEEDED:
            lines[ours] = {"value": 1} if ours == "quantity" else {"column": "..."}
    # What is not printable is escaped by YAML, so that it means the same when it is copied.
    return yaml.safe_dump(lines, sort_keys=False, allow_unicode="".join(there).isprintable()).strip()


def _bare(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _with_guess(name: str, there: list[str]) -> str:
    close = get_close_matches(name, there, n=1)
    return f"{name!r} (did you mean {close[0]!r}?)" if close else repr(name)
