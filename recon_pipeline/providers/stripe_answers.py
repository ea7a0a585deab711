"""What the answers of Stripe's API say, read from their bodies.

Invariant: a body that is JSON and yet not what the API reference shows is never half of an answer: it is one error,
which names the part. Knows no connection.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NoReturn

from recon_pipeline.core.errors import one_line
from recon_pipeline.providers.protocol import Meter, Rejection

LARGEST_EXPONENT = 30
"""Beyond the sum of any meter: an event has at most 15 digits. What is larger fits in no column of a Parquet file."""

REPORT = "v1.billing.meter.error_report_triggered"


class MisshapenError(Exception):
    """An answer that is not one of the API; says what is wrong with it."""


@contextmanager
def as_documented() -> Iterator[None]:
    """Where an answer is read.

    Raises:
        MisshapenError: It lacks a part, or has one of another kind.
    """
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError) as error:
        raise MisshapenError(one_line(f"{type(error).__name__}: {error}"[:200])) from None


def parsed(body: str) -> dict[str, Any]:
    """The object of a body, with numbers as Decimal."""
    with as_documented():
        found = json.loads(body, parse_float=Decimal, parse_int=Decimal, parse_constant=_no_number)
        if not isinstance(found, dict):
            raise TypeError(f"a {type(found).__name__} instead of an object")
        return found  # pyright: ignore[reportUnknownVariableType]


def described(meter: str, found: Mapping[str, Any]) -> Meter:
    """A meter, with why it cannot be compared."""
    with as_documented():
        formula, time_window = found["default_aggregation"]["formula"], found.get("event_time_window")
        faults = (
            f"it is {found['status']}" if found["status"] != "active" else "",
            f"its formula is {formula}, not sum" if formula != "sum" else "",
            f"of each {time_window} it keeps only the newest event" if time_window else "",
        )
        return Meter(meter, found["event_name"], " and ".join(filter(None, faults)))


def summaries(page: Mapping[str, Any]) -> list[tuple[datetime, Decimal]]:
    """The sums on a page, each with its start."""
    with as_documented():
        return [
            (datetime.fromtimestamp(int(one["start_time"]), UTC), _exact(one["aggregated_value"]))
            for one in page["data"]
        ]


def after(page: Mapping[str, Any], before: str | None) -> str | None:
    """The row after which the next page begins; None on the last one."""
    with as_documented():
        if not page.get("has_more"):
            return None
        last = page["data"][-1]["id"]
        if last == before:
            raise ValueError("the same page again")
        return last


def reports(page: Mapping[str, Any], read: set[str]) -> tuple[list[str], str | None]:
    """The error reports on a page, and the next page; `read` has those before."""
    with as_documented():
        found, following = [one["id"] for one in page["data"] if one["type"] == REPORT], page["next_page_url"]
        if following in read:
            raise ValueError("the same page again")
        if following is not None:
            if not following.startswith("/"):
                raise ValueError("the next page is elsewhere")
            read.add(following)
        return found, following


def named(report: Mapping[str, Any]) -> list[Rejection]:
    """The events that an error report names."""
    with as_documented():
        return [
            Rejection(example["request"]["identifier"], kind["code"])
            for kind in report["data"]["reason"]["error_types"]
            for example in kind["sample_errors"]
            if example.get("request", {}).get("identifier") is not None
        ]


def _exact(value: Decimal) -> Decimal:
    """A sum as it is; whole ones, which Stripe writes with a point, without it."""
    if not isinstance(value, Decimal) or abs(value.adjusted()) > LARGEST_EXPONENT:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"aggregated_value is {value!r}")
    return Decimal(int(value)) if value == value.to_integral_value() else value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")
