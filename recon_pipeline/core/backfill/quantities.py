"""Quantities as exports write them, read exactly: nothing is rounded unless the mapping says so.

A number that a spreadsheet may have rounded (`1e3`), a fraction in a log of whole units, and a number that does not fit
the log's column are rejected with the reason.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_UP, Decimal, localcontext
from typing import Any

from recon_pipeline.core.backfill.fields import QuantityField
from recon_pipeline.core.backfill.instants import UnreadableValueError, shown

_PLAIN = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
_SCIENTIFIC = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?[eE][+-]?[0-9]+")
_EXACT_FLOAT = 2.0**53
_LONGEST = 1_000
_MOST_DECIMALS = 12
_TYPE = re.compile(r"(?P<name>[a-z]+)(\((?P<precision>\d+)(,(?P<scale>-?\d+))?\))?")
_LARGEST = {"smallint": 2**15 - 1, "integer": 2**31 - 1, "bigint": 2**63 - 1}

QuantityReader = Callable[[Any], int | Decimal]


@dataclass(frozen=True)
class QuantityRange:
    """What the log's column `quantity` can hold.

    Attributes:
        type_name: As Postgres writes it, for example `integer` or `numeric(12,3)`.
        largest: The largest value, or None if there is none.
        scale: Digits after the point that are kept, or None for all of them.
    """

    type_name: str
    largest: int | None
    scale: int | None

    @classmethod
    def of(cls, type_name: str) -> "QuantityRange":
        """The range of a type."""
        match = _TYPE.fullmatch(type_name)
        if match is None or match["name"] != "numeric":
            return cls(type_name, _LARGEST.get(type_name, 2**31 - 1), 0)
        if match["precision"] is None:
            return cls(type_name, None, None)
        scale = int(match["scale"] or 0)
        return cls(type_name, 10 ** (int(match["precision"]) - scale) - 1, scale)


def quantity_reader(field: QuantityField, allowed: QuantityRange) -> QuantityReader:
    """A function that reads the values of a column as quantities of the log.

    The reader raises:
        UnreadableValueError: The value is not a quantity that the log can store exactly.
    """
    has_unit = field.has_unit
    is_unlimited = allowed.largest is None
    largest = allowed.largest or 0

    def read(value: Any) -> int | Decimal:
        number = int(value) if type(value) is str and len(value) < 30 and value.isascii() and value.isdigit() else value
        if type(number) is int and not has_unit and number > 0 and (is_unlimited or number <= largest):
            return number
        exact = _exact(number)
        if has_unit:
            exact = _in_units(exact, field, _MOST_DECIMALS if allowed.scale is None else allowed.scale)
        return _within(exact, allowed, value)

    return read


def _exact(value: Any) -> Decimal:
    if value is None or value == "":
        raise UnreadableValueError("is empty")
    if isinstance(value, bool):
        raise UnreadableValueError(f"{value} is not a number")
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise UnreadableValueError(f"{value} is not a quantity")
        if abs(value) > _EXACT_FLOAT:
            raise UnreadableValueError(f"{value} is larger than a floating point number can represent exactly")
        return Decimal(repr(value))
    if isinstance(value, int):
        return Decimal(value)
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise UnreadableValueError(f"{value} is not a quantity")
        return value
    if isinstance(value, str):
        text = value.strip()
        if len(text) <= _LONGEST and _PLAIN.fullmatch(text):
            return Decimal(text)
        if _SCIENTIFIC.fullmatch(text):
            raise UnreadableValueError(f"{shown(text)} is in scientific notation and may be rounded; write its digits")
        raise UnreadableValueError(f"{shown(value)} is not a number in plain digits")
    raise UnreadableValueError(f"{shown(value)} is not a number")


def _in_units(exact: Decimal, field: QuantityField, scale: int) -> Decimal:
    with localcontext() as context:
        context.prec = _LONGEST * 2
        total = exact * field.multiply
        if field.round is None:
            whole, rest = divmod(total * 10**scale, field.divide)
            if rest:
                raise UnreadableValueError(f"{shown(total)} / {field.divide} has a remainder; set round: up or down")
            return whole.scaleb(-scale)
        rounding = ROUND_UP if field.round == "up" else ROUND_DOWN
        return (total / field.divide).quantize(Decimal(1), rounding=rounding)


def _within(exact: Decimal, allowed: QuantityRange, value: Any) -> int | Decimal:
    if exact <= 0:
        raise UnreadableValueError(f"{shown(value)} is not above 0")
    if exact.adjusted() > _LONGEST:
        raise UnreadableValueError(f"{shown(value)} is too large for the log's quantity ({allowed.type_name})")
    with localcontext() as context:
        context.prec = _LONGEST * 2
        kept = (
            exact if allowed.scale is None else exact.quantize(Decimal(1).scaleb(-allowed.scale), rounding=ROUND_DOWN)
        )
    if kept != exact:
        digits = "a fraction" if not allowed.scale else f"more than {allowed.scale} digits after the point"
        raise UnreadableValueError(f"{shown(value)} has {digits}, and the log's quantity is {allowed.type_name}")
    if allowed.largest is not None and int(exact) > allowed.largest:
        raise UnreadableValueError(f"{shown(value)} is too large for the log's quantity ({allowed.type_name})")
    return int(exact) if exact == exact.to_integral_value() else exact
