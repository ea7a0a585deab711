"""Identifiers as exports write them, and the request id of a row that has none.

Text that Postgres cannot store is rejected.
"""

import json
import uuid
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

from recon_pipeline.core.backfill.instants import UnreadableValueError, shown

REQUEST_NAMESPACE = uuid.UUID("6b1fd3b4-5c0a-5d0b-9d7b-0c4b3f8f2f60")
"""For request ids made from a primary key. If it changed, every such row would be counted again."""


def request_id_of(gateway_name: str, customer: str, usage_type: str, *, primary_key: list[str]) -> str:
    """The request id of a row that has none: the same for the same row, in every file."""
    name = json.dumps([gateway_name, customer, usage_type, *primary_key], ensure_ascii=False, separators=(",", ":"))
    return str(uuid.uuid5(REQUEST_NAMESPACE, name))


def identifier(value: Any) -> str:
    """A value as an identifier; a number or a UUID becomes its digits.

    Raises:
        UnreadableValueError: It is empty, not text, or contains characters that no identifier has.
    """
    if type(value) is str:
        if value and value.isprintable() and value[0] != " " and value[-1] != " ":
            return value
        return _odd_identifier(value)
    if value is None:
        raise UnreadableValueError("is empty")
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str, uuid.UUID, datetime)):
        raise UnreadableValueError(f"{shown(value)} is not text")
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (float, Decimal)):
        if value != value or value in (float("inf"), float("-inf")) or value != int(value) or abs(value) > 2**53:
            raise UnreadableValueError(f"{shown(value)} is a number with a fraction or too large to be exact")
        return str(int(value))
    return str(value)


def _odd_identifier(value: str) -> str:
    if not value.strip():
        raise UnreadableValueError("is empty")
    if value != value.strip():
        raise UnreadableValueError(f"{shown(value)} begins or ends with a space")
    require_storable(value)
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
