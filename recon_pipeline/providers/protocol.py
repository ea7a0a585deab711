"""What the comparison asks of a billing provider, and how a provider fails."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.parity.windows import Unit, Window


class ProviderError(ReconError):
    """The provider did not answer, or refuses us: it says nothing about any customer."""


class NotAllowedError(ProviderError):
    """The key may not read what was asked for."""


class NoAnswerError(ProviderError):
    """The provider does not answer, or asks to be left alone: a later comparison goes on."""


class RefusedCustomerError(ReconError):
    """The provider refuses what was asked of one customer; others are not affected."""


@dataclass(frozen=True)
class Meter:
    """A meter as the provider describes it.

    Attributes:
        id: As configured.
        event_name: Of the events that it sums.
        why_not: Why its figures cannot be compared with sums of the log; empty if they can.
    """

    id: str
    event_name: str
    why_not: str


@dataclass(frozen=True)
class Rejection:
    """An event that an error report of the meter names as an example.

    Attributes:
        identifier: With which it was sent.
        code: Why it was not counted.
    """

    identifier: str
    code: str


class Meters(Protocol):
    """A provider's meters, read only."""

    def meter(self, meter: str) -> Meter:
        """Describe a meter."""
        ...

    def total(self, meter: str, customer: str, window: Window) -> Decimal:
        """What the meter has of a customer in a window, exactly."""
        ...

    def grouped(self, meter: str, customer: str, window: Window, unit: Unit) -> Mapping[datetime, Decimal]:
        """The same by hour or day, by its start; a unit without events may be left out."""
        ...

    def rejections(self, meter: str) -> tuple[Rejection, ...]:
        """The events that error reports of the meter name, of the last 30 days."""
        ...
