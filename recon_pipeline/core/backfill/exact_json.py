"""JSON as exports write it, with numbers to the last digit and every name of an object, also repeated ones. Pure.

Invariant: what is read and written again is the same text for every number; floating point numbers do not occur.
"""

import json
import re
from collections.abc import Sequence
from datetime import date, datetime, time
from decimal import Decimal
from json.encoder import encode_basestring_ascii
from typing import Any

from recon_pipeline.core.backfill.instants import UnreadableValueError

DEEPEST = 200
"""Levels of lists and objects in one value: Python and Postgres follow some thousand, and each copy takes several."""
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]', re.DOTALL)
"""Or a text, in which brackets are none."""
_MOST_DIGITS = 1_000
"""A longer number is kept as text: Postgres' numbers have an end too. NaN and its like end with a letter."""


class TooDeepError(ValueError):
    """A text is nested too deeply to be read."""

    def __init__(self) -> None:
        super().__init__(f"it is nested more than {DEEPEST} levels deep")


class Doubled:
    """An object of which a name occurs twice, with all its pairs, to be kept as it was written."""

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        self.pairs = pairs

    def __str__(self) -> str:
        return f"{{{', '.join(f'{encode(name)}: {encode(value)}' for name, value in self.pairs)}}}"


def _object(pairs: list[tuple[str, Any]]) -> "dict[str, Any] | Doubled":
    found = dict(pairs)
    return found if len(found) == len(pairs) else Doubled(pairs)


_DECODER = json.JSONDecoder(parse_float=Decimal, object_pairs_hook=_object)


def decode(text: str) -> Any:
    """A text as JSON; a number with a point or an exponent becomes a Decimal.

    Raises:
        TooDeepError: It is nested too deeply.
        ValueError: It is no JSON.
    """
    if text.count("[") + text.count("{") > DEEPEST and _is_too_deep(text):
        raise TooDeepError
    try:
        return _DECODER.decode(text)
    except ArithmeticError:
        raise ValueError("it has a number whose exponent has no end") from None


def encode(value: Any) -> str:
    """A value as JSON; what JSON cannot say is text: times, bytes, NaN. ASCII alone.

    Raises:
        UnreadableValueError: It is nested too deeply, or its objects have names that are no text.
    """
    try:
        return _written(value)
    except (ValueError, TypeError, RecursionError):
        raise UnreadableValueError("has a value that JSON cannot represent, or is nested too deeply") from None


def _written(value: Any) -> str:
    if type(value) is str:
        return encode_basestring_ascii(value)
    if isinstance(value, Decimal):
        return _number(value)
    try:
        return _ENCODER.encode(value)
    except (_NeedsCareError, ValueError):
        return _carefully_written(value)


def _carefully_written(value: Any) -> str:
    """Part by part, which takes longer: somewhere in it is a number that the encoder would change or refuse."""
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if isinstance(value, Decimal):
        return _number(value)
    if isinstance(value, dict):
        pairs: list[tuple[Any, Any]] = list(value.items())  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        inside = [f"{encode_basestring_ascii(str(name))}: {_carefully_written(inner)}" for name, inner in pairs]
        return f"{{{', '.join(inside)}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_carefully_written, value))}]"  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return '"NaN"' if value != value else f'"{"-" if value < 0 else ""}Infinity"'
    return _ENCODER.encode(value)


def _number(value: Decimal) -> str:
    text = str(value)
    if len(text) < _MOST_DIGITS and text[-1].isdigit() and ("E" not in text or abs(value.adjusted()) < _MOST_DIGITS):
        return text
    return f'"{text}"'


class _NeedsCareError(Exception):
    """A value holds a number that the fast encoder would change."""


def _plain(value: Any) -> str:
    """A value that JSON cannot represent, as text."""
    if isinstance(value, Decimal):
        raise _NeedsCareError
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def _is_too_deep(text: str) -> bool:
    depth = 0
    for token in _BRACKET.finditer(text):
        depth += (token[0] in "{[") - (token[0] in "}]")
        if depth > DEEPEST:
            return True
    return False


_ENCODER = json.JSONEncoder(default=_plain, allow_nan=False)
