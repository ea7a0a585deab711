"""Numbers in texts, with the separators of any country; a text that could be two numbers is rejected."""

import re
from decimal import Decimal

from recon_pipeline.core.backfill.instants import UnreadableValueError, shown

LONGEST = 1_000
"""Digits of a number; a longer text is none."""
_SCIENTIFIC = re.compile(r"[+-]?[0-9]+([.,][0-9]+)?[eE][+-]?[0-9]+")
_AMBIGUOUS = re.compile(r"[+-]?[1-9][0-9]{0,2}(\.[0-9]{3})+")
_GROUPED = re.compile(r"[+-]?[0-9]{1,3}([.,' \u00a0\u202f\u2019][0-9]{3})*([.,][0-9]+)?")


class TextNumber:
    """Reads numbers.

    Args:
        decimal: What stands before the fraction; None for a point, or a comma where `thousands` is a point.
        thousands: What stands between groups of three digits, or None.
        counts_whole: Whether only whole numbers are expected: there 1.000 may be a thousand.
    """

    def __init__(self, decimal: str | None, thousands: str | None, *, counts_whole: bool) -> None:
        self._decimal = decimal or ("," if thousands == "." else ".")
        self._thousands = thousands
        self._refuses_ambiguous = counts_whole and decimal is None and thousands is None
        whole = "[0-9]+"
        if thousands is not None:
            whole = f"([0-9]+|[0-9]{{1,3}}({re.escape(thousands)}[0-9]{{3}})+)"
        self._form = re.compile(f"[+-]?{whole}({re.escape(self._decimal)}[0-9]+)?")

    def read(self, value: str) -> Decimal:
        """The number.

        Raises:
            UnreadableValueError: It is none, or could be two.
        """
        text = value.strip()
        if self._refuses_ambiguous and _AMBIGUOUS.fullmatch(text):
            whole, fraction = text.replace(".", ""), text.partition(".")[0]
            meant = (
                f"{fraction} or {whole}" if text.count(".") == 1 and not text.rpartition(".")[2].strip("0") else whole
            )
            raise UnreadableValueError(
                f'{shown(text)} can be {meant}; set thousands: "." or decimal: "." for quantity in the mapping'
            )
        if len(text) <= LONGEST and self._form.fullmatch(text):
            if self._thousands is not None:
                text = text.replace(self._thousands, "")
            return Decimal(text.replace(self._decimal, "."))
        if _SCIENTIFIC.fullmatch(text):
            raise UnreadableValueError(f"{shown(text)} is in scientific notation and may be rounded; write its digits")
        advice = ""
        if _GROUPED.fullmatch(text):
            advice = "; decimal: and thousands: for quantity in the mapping say what its separators mean"
        raise UnreadableValueError(f"{shown(value)} is not a number in plain digits{advice}")
