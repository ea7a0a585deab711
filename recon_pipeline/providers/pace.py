"""At most so many calls a second, and no call before the provider allows the next one."""

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

CALLS_PER_SECOND = 20
"""Stripe allows 25 a second for each endpoint (rate limits); some of them are left to the application."""


@dataclass
class Pace:
    """Lets each call wait for its turn.

    Attributes:
        calls_per_second: The most.
        now: A clock that never goes back, in seconds.
        sleep: Waits for some seconds.
        calls: How many had their turn.
    """

    calls_per_second: int = CALLS_PER_SECOND
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    calls: int = 0
    _next: float = field(default=0.0, init=False)

    @property
    def seconds_until_next(self) -> float:
        """How long the next call has to wait."""
        return max(0.0, self._next - self.now())

    def wait(self) -> None:
        """Wait for the turn of the next call."""
        moment, seconds = self.now(), self.seconds_until_next
        if seconds:
            self.sleep(seconds)
        self._next = max(moment, self._next) + 1 / self.calls_per_second
        self.calls += 1

    def hold(self, seconds: float) -> None:
        """Let the next call wait for at least so long."""
        self._next = max(self._next, self.now() + seconds)


def wait_seconds(headers: Mapping[str, str], attempt: int) -> float:
    """What Retry-After says, else longer each time, and never the same for two clients."""
    given = {name.lower(): value for name, value in headers.items()}
    try:
        asked = float(given.get("retry-after", ""))
    except ValueError:  # a date, which Stripe does not send, or nothing
        asked = 0.0
    growing = 0.5 * 2 ** (attempt - 1) * (1 + random.random())  # noqa: S311 - no secret
    return asked if asked > growing else growing  # and so not a number is none


def in_words(seconds: float) -> str:
    """A wait as a person reads it."""
    return f"{math.ceil(seconds):,} seconds" if math.isfinite(seconds) else "ever"
