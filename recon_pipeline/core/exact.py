"""Sums of quantities that keep every digit, where `+` of two decimals rounds to 28."""

from collections.abc import Iterable
from decimal import Context, Decimal
from functools import reduce

EXACT = Context(prec=150_000)
"""Keeps every digit of the sums of a log: a numeric of Postgres has fewer."""


def total(numbers: Iterable[Decimal | int]) -> Decimal:
    """Numbers added up, with no zero that says nothing."""
    return Decimal(as_text(reduce(EXACT.add, map(Decimal, numbers), Decimal(0))))


def as_text(number: Decimal) -> str:
    """A sum in digits, with none after the point that says nothing."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
