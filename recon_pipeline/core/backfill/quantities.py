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
from recon_pipeline.core.backfill.instants import ShortFloat, UnreadableValueError, is_rounded, shown
from recon_pipeline.core.backfill.number_texts import LONGEST, TextNumber
from recon_pipeline.core.quotas import LARGEST_BIGINT

_EXACT_FLOAT = 2.0**53
_MOST_DECIMALS = 12
_TYPE = re.compile(r"(?P<name>[a-z]+)(\((?P<precision>\d+)(,(?P<scale>-?\d+))?\))?")
_LARGEST = {"smallint": 2**15 - 1, "integer": 2**31 - 1, "bigint": LARGEST_BIGINT}

QuantityReader = Callable[[Any], int | Decimal]


@dataclass(frozen=True)
class QuantityRange:
    """What the log's column `quantity` can hold.

    Attributes:
        type_name: As Postgres writes it, for example `integer` or `numeric(12,3)`.
        largest: The largest value, or None if there is none.
        scale: Digits after the point that are kept, or None for all of them.
        takes_zero: The log's table does not refuse an event of no units.
        takes_negative: Events of negative quantity are credits, as somebody has declared.
    """

    type_name: str
    largest: int | None
    scale: int | None
    takes_zero: bool = False
    takes_negative: bool = False

    @classmethod
    def of(cls, type_name: str, *, takes_zero: bool = False, takes_negative: bool = False) -> "QuantityRange":
        """The range of a type."""
        match = _TYPE.fullmatch(type_name)
        if match is None or match["name"] != "numeric":
            return cls(type_name, _LARGEST.get(type_name, 2**31 - 1), 0, takes_zero, takes_negative)
        if match["precision"] is None:
            return cls(type_name, None, None, takes_zero, takes_negative)
        scale = int(match["scale"] or 0)
        return cls(type_name, 10 ** (int(match["precision"]) - scale) - 1, scale, takes_zero, takes_negative)


def quantity_reader(field: QuantityField, allowed: QuantityRange) -> QuantityReader:
    """A function that reads the values of a column as quantities of the log.

    The reader raises:
        UnreadableValueError: The value is not a quantity that the log can store exactly.
    """
    has_unit = field.has_unit
    is_unlimited = allowed.largest is None
    largest = allowed.largest or 0
    text_number = TextNumber(field.decimal, field.thousands, counts_whole=allowed.scale == 0)

    def read(value: Any) -> int | Decimal:
        if field.default is not None and (value is None or value == ""):
            return field.default
        number = int(value) if type(value) is str and len(value) < 30 and value.isascii() and value.isdigit() else value
        if type(number) is int and not has_unit and number > 0 and (is_unlimited or number <= largest):
            return number
        exact = _exact(number, text_number)
        if has_unit:
            exact = _in_units(exact, field, _MOST_DECIMALS if allowed.scale is None else allowed.scale)
        return _within(exact, allowed, value)

    return read


def _exact(value: Any, text_number: TextNumber) -> Decimal:
    if value is None or value == "":
        raise UnreadableValueError("is empty")
    if isinstance(value, bool):
        raise UnreadableValueError(f"{value} is not a number")
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise UnreadableValueError(f"{value} is not a quantity")
        if abs(value) > _EXACT_FLOAT or isinstance(value, ShortFloat):
            raise UnreadableValueError(f"{value} is larger than a floating point number can represent exactly")
        return Decimal(repr(value))
    if isinstance(value, int):
        return Decimal(value)
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise UnreadableValueError(f"{value} is not a quantity")
        if is_rounded(value):
            raise UnreadableValueError(f"{value} is in scientific notation and may be rounded; write its digits")
        return value
    if isinstance(value, str):
        return text_number.read(value)
    raise UnreadableValueError(f"{shown(value)} is not a number")


def _in_units(exact: Decimal, field: QuantityField, scale: int) -> Decimal:
    with localcontext() as context:
        context.prec = LONGEST * 2
        total = exact * field.multiply
        if field.round is None:
            whole, rest = divmod(total * 10**scale, field.divide)
            if rest:
                raise UnreadableValueError(f"{shown(total)} / {field.divide} has a remainder; set round: up or down")
            return whole.scaleb(-scale)
        rounding = ROUND_UP if field.round == "up" else ROUND_DOWN
        return (total / field.divide).quantize(Decimal(1), rounding=rounding)


def _within(exact: Decimal, allowed: QuantityRange, value: Any) -> int | Decimal:
    if exact < 0 and not allowed.takes_negative:
        raise UnreadableValueError(f"{shown(value)} is below 0; set RECON_NEGATIVE_QUANTITIES=sum if it is a credit")
    if exact == 0 and not allowed.takes_zero:
        raise UnreadableValueError(f"{shown(value)} is not above 0, as the log's table wants it")
    if exact.adjusted() > LONGEST:
        raise UnreadableValueError(f"{shown(value)} is too large for the log's quantity ({allowed.type_name})")
    with localcontext() as context:
        context.prec = LONGEST * 2
        kept = (
            exact if allowed.scale is None else exact.quantize(Decimal(1).scaleb(-allowed.scale), rounding=ROUND_DOWN)
        )
    if kept != exact:
        digits = "a fraction" if not allowed.scale else f"more than {allowed.scale} digits after the point"
        raise UnreadableValueError(f"{shown(value)} has {digits}, and the log's quantity is {allowed.type_name}")
    if allowed.largest is not None and not -allowed.largest - 1 <= int(exact) <= allowed.largest:
        raise UnreadableValueError(f"{shown(value)} is too large for the log's quantity ({allowed.type_name})")
    return int(exact) if exact == exact.to_integral_value() else exact
