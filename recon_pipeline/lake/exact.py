"""Quantities in pieces that an engine adds without rounding or overflow; whoever reads the sums puts them together.

Invariant: no quantity passes through a floating point number. Engines add decimals of at most 38 digits: a quantity of
more than 18 digits is cut into pieces of 18 digits, of which 10^20 can be added.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from typing import TYPE_CHECKING, Any

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.exact import EXACT
from recon_pipeline.lake.files import NOTHING_COUNTED

if TYPE_CHECKING:
    import ibis.expr.types as ir

_DIGITS = 18
_SIDE = 3 * _DIGITS
_POWERS = (36, 18, 0, -18, -36, -54)
_NUMBER = (
    rf"\A-?([0-9]{{1,{_SIDE}}}(\.[0-9]{{1,{_SIDE}}})?|\.[0-9]{{1,{_SIDE}}})\z"  # $ would allow a line's end in Java
)
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")


@dataclass(frozen=True)
class Exact:
    """A column of quantities.

    Attributes:
        pieces: To be added each by itself.
        powers: By which power of ten each is multiplied before all are added.
        is_finite: A number, and not null.
        is_negative: Below 0.
        is_unread: A text that is no number of at most 54 digits on each side of the point, and not null.
    """

    pieces: tuple["ir.DecimalValue", ...]
    powers: tuple[int, ...]
    is_finite: Any
    is_negative: Any
    is_unread: Any


def exact(quantity: Any) -> Exact:
    """A column of whole numbers, decimals, or numbers as text with all their digits.

    Raises:
        ConfigurationError: It is a column of floating point numbers, or none of numbers.
    """
    kind = quantity.type()
    if kind.is_integer() or (kind.is_decimal() and (kind.precision or 38) <= _DIGITS):
        scale = kind.scale if kind.is_decimal() else 0
        piece = quantity.cast(f"decimal(38, {scale})")
        return Exact((piece,), (0,), quantity.notnull(), quantity < 0, quantity.isnull() & quantity.notnull())
    if not (kind.is_decimal() or kind.is_string()):
        raise ConfigurationError(
            f"The quantities are of the type {kind}, which does not keep every digit.",
            changed=NOTHING_COUNTED,
            fix="Write them as whole numbers (int64) or as decimals, for example with a cast to decimal(38, 6).",
        )
    text = quantity.cast("string")
    is_number = text.re_search(_NUMBER)
    is_unread = (text.notnull() & ~is_number & text.notin(_NOT_FINITE)).fill_null(False)
    is_negative = text.startswith("-")
    whole = ("0" * _SIDE + text.re_extract("^-?([0-9]+)", 1)).right(_SIDE)
    fraction = (text.re_extract(r"\.([0-9]+)$", 1) + "0" * _SIDE).left(_SIDE)
    sign = is_negative.ifelse(-1, 1)
    cut = (side.substr(start, _DIGITS) for side in (whole, fraction) for start in range(0, _SIDE, _DIGITS))
    pieces = tuple((is_number.ifelse(one, "0").cast("int64") * sign).cast("decimal(38, 0)") for one in cut)
    return Exact(pieces, _POWERS, is_number, is_negative, is_unread)


def added_up(pieces: Sequence[Any], powers: Sequence[int]) -> Decimal:
    """The sum whose pieces an engine gave, whatever its length."""
    scaled = (EXACT.scaleb(Decimal(one or 0), power) for one, power in zip(pieces, powers, strict=True))
    return reduce(EXACT.add, scaled, Decimal(0))
