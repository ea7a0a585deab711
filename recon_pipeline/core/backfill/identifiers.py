"""Identifiers as exports write them, and the request id of a row that has none.

Text that Postgres cannot store is rejected, and text that a spreadsheet has made of a number, because it names another;
and a UUID in capital letters, because it may be in the log under its small ones.
"""

import json
import re
import unicodedata
import uuid
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

from recon_pipeline.core.backfill.instants import ShortFloat, UnreadableValueError, is_rounded, shown

REQUEST_NAMESPACE = uuid.UUID("6b1fd3b4-5c0a-5d0b-9d7b-0c4b3f8f2f60")
"""For request ids made from a primary key. If it changed, every such row would be counted again."""


def request_id_of(gateway_name: str, customer: str, usage_type: str, *, primary_key: list[str]) -> str:
    """The request id of a row that has none: the same for the same row, in every file."""
    name = json.dumps([gateway_name, customer, usage_type, *primary_key], ensure_ascii=False, separators=(",", ":"))
    return str(uuid.uuid5(REQUEST_NAMESPACE, name))


_LIKE_A_NUMBER = re.compile(r"[+-]?[0-9]([0-9]*\.0+|([.,][0-9]+)?[eE][+-][0-9]+|\.[0-9]+[eE][0-9]+)")
"""7.0, as pandas writes 7 beside an empty cell; 1.79E+12, as a spreadsheet writes 1792349000000, and Spark 1.79E12."""
_NO_VALUE = re.compile(r"#+|#(N/A|DIV/0!|GETTING_DATA|[A-ZÄÖÜÉ]{2,12}[!?])|#(NV|NULL|N/V)|\[object Object\]|=\".*\"")
"""What a spreadsheet shows in place of a value that it lacks, JavaScript in place of an object; a formula of a text."""
_NO_NAMES = frozenset(
    (
        *("NA", "N/A", "n/a", "#N/A N/A", "-nan", "-NaN", "undefined", "nil", "<nil>", "%!s(<nil>)", "(null)"),
        *("Null", "none", "NONE", "<none>", "<null>", "<NULL>", "[NULL]", str(uuid.UUID(int=0))),
    )
)
"""What R, JavaScript, Go, C, database tools and other programs write in place of a value that they lack."""
_BEGINS_SUCH = frozenset("0123456789+-#[=")
_UUID_LENGTH = 36
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_LARGEST_FLOAT = 2.0**53
_MOST_DIGITS = 1_000


def identifier(value: Any) -> str:
    """A value as an identifier; a number or a UUID becomes its digits.

    Raises:
        UnreadableValueError: As `identifier_as_written`, or it is a text that another program made of a number, or
            wrote in place of a value, or a UUID that another program may have written in small letters.
    """
    if is_uuid_in_capitals(value):
        raise UnreadableValueError(
            f"{shown(value)} is a UUID in capital letters, and the log may have it in small ones; write it as the log "
            "does, or map it with as_written: true if the log has capitals"
        )
    if type(value) is not str or not value or (value[0] not in _BEGINS_SUCH and value not in _NO_NAMES):
        return identifier_as_written(value)
    if _LIKE_A_NUMBER.fullmatch(value):
        raise UnreadableValueError(
            f"{shown(value)} is a number as a spreadsheet or pandas writes it, and may be another identifier; write "
            "all its digits and no more, or map it with as_written: true if it is its name"
        )
    if value in _NO_NAMES or _NO_VALUE.fullmatch(value):
        raise UnreadableValueError(
            f"{shown(value)} is what a spreadsheet or a program writes in place of a value, for many rows; write the "
            "identifier itself, or map it with as_written: true if it is its name"
        )
    return identifier_as_written(value)


def is_uuid_in_capitals(value: Any) -> bool:
    """Whether a value is the text of a UUID that has capital letters: the same one as in small letters."""
    return (
        type(value) is str
        and len(value) == _UUID_LENGTH
        and value != value.lower()
        and _UUID.fullmatch(value) is not None
    )


def identifier_as_written(value: Any) -> str:
    """A value as an identifier, whatever a text looks like.

    Raises:
        UnreadableValueError: It is empty, not text, or contains characters that no identifier has.
    """
    if type(value) is str:
        if value and value.isprintable() and value[0] != " " and value[-1] != " ":
            return value
        return _odd_identifier(value)
    if value is None:
        raise UnreadableValueError("is empty")
    if isinstance(value, bytes):
        raise UnreadableValueError(
            f"{shown(value)} is bytes, not text: the file's column is not marked as UTF-8, as old ClickHouse and "
            "Impala leave it; write it as a string (STRING, UTF8), or give the rows by a query that casts it"
        )
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str, uuid.UUID, datetime)):
        raise UnreadableValueError(f"{shown(value)} is not text")
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (float, Decimal)):
        return _digits(value)
    return str(value)


def _digits(value: float | Decimal) -> str:
    number = Decimal(value)
    is_exact = number.is_finite() and not is_rounded(number) and number.adjusted() < _MOST_DIGITS
    if isinstance(value, float):
        is_exact = is_exact and abs(value) < _LARGEST_FLOAT and not isinstance(value, ShortFloat)
    if not is_exact or number != number.to_integral_value():
        raise UnreadableValueError(f"{shown(value)} is a number with a fraction, or rounded, or too large to be exact")
    return str(int(number))


def _odd_identifier(value: str) -> str:
    if not value.strip():
        raise UnreadableValueError("is empty")
    if value != value.strip():
        raise UnreadableValueError(f"{shown(value)} begins or ends with a space")
    require_storable(value)
    if "Cf" in (unicodedata.category(value[0]), unicodedata.category(value[-1])):
        raise UnreadableValueError(f"{value!a} begins or ends with a character that nobody sees")
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in value):
        raise UnreadableValueError(f"{shown(value)} contains a control character")
    return value


def require_storable(value: Any) -> None:
    """Reject text that Postgres cannot store: NUL, and halves of characters (a wrong encoding)."""
    for text in _texts_in(value):
        if "\0" in text:
            raise UnreadableValueError(f"{shown(text)} contains a NUL character, which Postgres cannot store")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise UnreadableValueError(f"{shown(text)} has another encoding than the mapping says (encoding:)")


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():  # pyright: ignore[reportUnknownVariableType]
            yield from _texts_in(name)
            yield from _texts_in(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:  # pyright: ignore[reportUnknownVariableType]
            yield from _texts_in(inner)
