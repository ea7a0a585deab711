"""What a mishap is given before it happens, and what it reports afterwards."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random

from recon_pipeline.faces.demo.counters import CounterKey


@dataclass(frozen=True)
class Mishap:
    """One thing that went wrong.

    Attributes:
        name: What it is called, in a word or two.
        story: One sentence for a person, with the numbers.
        keys: The keys that drift by it, each once.
        quantity: Units of usage by which they drift, all added up.
    """

    name: str
    story: str
    keys: tuple[CounterKey, ...]
    quantity: int


@dataclass(frozen=True)
class Scene:
    """Where mishaps happen: at `now`, among so many counters."""

    now: datetime
    counter_count: int

    def share(self, per_mille: int, at_least: int) -> int:
        """So many of a thousand counters, in counters."""
        return max(at_least, self.counter_count * per_mille // 1000)

    def working_hour(self, random: Random, days_ago: int) -> datetime:
        """An instant in the UTC day that lies so many days back; the hour after it is in that day too."""
        midnight = self.now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight + timedelta(days=-days_ago, hours=random.randint(8, 17), minutes=random.randrange(60))


def at_minute(moment: datetime) -> str:
    """A UTC moment to the minute."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"
