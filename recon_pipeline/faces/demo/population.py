"""The population of the demo: its customers, how they are billed in six months, and every event they will send.

Pure and seeded: the same seed, sizes and day of `now` give the same population, byte for byte. Events are
made one customer at a time from a random stream of that customer's own, so that a population of millions
of events needs the memory of its busiest customer. It knows no database and no clock.

Invariants: every event lies in exactly one of its customer's half-open periods and before `now`; the
events of all customers together are exactly as many as were asked for.
"""

from bisect import bisect_right
from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate, pairwise
from random import Random

GATEWAY_NAME = "stripe"
USAGE_TYPE = "remote_commands"
# The two as statements take them.
METERED = {"gateway_name": GATEWAY_NAME, "usage_type": USAGE_TYPE}
PERIODS_PER_CUSTOMER = 6

# One in so many customers signs up and never sends an event.
IDLE_CUSTOMER_EVERY = 25
# One in so many customers joins after the first period.
LATE_JOINER_EVERY = 5
# Mostly one command per request, now and then a few.
QUANTITIES = (1,) * 17 + (2, 3, 4, 5)
STATUSES = ("active",) * 9 + ("trialing",) * 2 + ("canceled",) * 3 + (None,) * 6
# The busiest customer's weight; the customer of rank r weighs this divided by r (Zipf's law).
ZIPF_SCALE = 10**12


@dataclass(frozen=True, slots=True)
class Period:
    """A half-open billing period `[start, end)`, aware UTC."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer with its periods, oldest first; the last one is open. `status` None: no subscription."""

    customer_id: str
    anchor_day: int
    status: str | None
    periods: tuple[Period, ...]
    event_count: int

    @property
    def subscription_period(self) -> Period:
        """The current period of its subscription: the open one, or the last one before it canceled."""
        return self.periods[-2] if self.status == "canceled" else self.periods[-1]


@dataclass(frozen=True, slots=True)
class DemoEvent:
    """One metered action as it goes to the recorder."""

    customer_id: str
    period: Period
    request_id: str
    quantity: int
    event_timestamp: datetime


@dataclass(frozen=True, slots=True)
class Population:
    """The customers by id, and what is needed to make their events. No event is at or after `horizon`."""

    seed: int
    horizon: datetime
    customers: tuple[Customer, ...]

    def events_of(self, customer: Customer) -> Iterator[DemoEvent]:
        """The customer's events in the order they happened."""
        random = Random(f"{self.seed}/{customer.customer_id}")  # noqa: S311 - not a secret, has to be repeatable
        starts = [period.start for period in customer.periods]
        span_seconds = int((self.horizon - starts[0]).total_seconds())
        offsets = sorted(int(random.random() * span_seconds) for _ in range(customer.event_count))
        request_prefix = customer.customer_id.replace("cus_", "req_", 1)
        for number, offset_seconds in enumerate(offsets, start=1):
            event_timestamp = starts[0] + timedelta(seconds=offset_seconds)
            yield DemoEvent(
                customer_id=customer.customer_id,
                period=customer.periods[bisect_right(starts, event_timestamp) - 1],
                request_id=f"{request_prefix}_{number:07d}",
                quantity=random.choice(QUANTITIES),
                event_timestamp=event_timestamp,
            )

    def events(self) -> Iterator[DemoEvent]:
        """Every event, by customer and then in the order they happened."""
        for customer in self.customers:
            yield from self.events_of(customer)


def make_population(*, seed: int, events: int, customers: int, now: datetime) -> Population:
    """Make `events` events of `customers` customers over six billing periods, the last one open at `now`.

    Only the UTC day of `now` matters: no event is of that day itself.

    Raises:
        ValueError: if `now` is naive, or a size is out of range.
    """
    if now.tzinfo is None:
        raise ValueError("now has to be an aware datetime")
    if events < 0 or customers < 1:
        raise ValueError(f"cannot make {events} events of {customers} customers")
    horizon = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    random = Random(f"{seed}/customers")  # noqa: S311 - not a secret, has to be repeatable
    idle = frozenset(random.sample(range(customers), customers // IDLE_CUSTOMER_EVERY))
    event_counts = _skewed_shares(events, customers, idle, random)
    return Population(
        seed=seed,
        horizon=horizon,
        customers=tuple(
            _customer(number, event_count, horizon, is_idle=number - 1 in idle, random=random)
            for number, event_count in enumerate(event_counts, start=1)
        ),
    )


def monthly_periods(anchor_day: int, at: datetime, count: int) -> tuple[Period, ...]:
    """The last `count` monthly periods that begin on `anchor_day`, ending with the one that contains `at`.

    A month too short for the anchor begins its period on its last day, as Stripe does.
    """
    month = at.year * 12 + at.month - 1
    if _period_start(month, anchor_day) > at:
        month -= 1
    boundaries = [_period_start(index, anchor_day) for index in range(month - count + 1, month + 2)]
    return tuple(Period(start, end) for start, end in pairwise(boundaries))


def _period_start(month: int, anchor_day: int) -> datetime:
    year, month_of_year = month // 12, month % 12 + 1
    return datetime(year, month_of_year, min(anchor_day, monthrange(year, month_of_year)[1]), tzinfo=UTC)


def _customer(number: int, event_count: int, horizon: datetime, *, is_idle: bool, random: Random) -> Customer:
    anchor_day = random.randint(1, 31)
    status = random.choice(STATUSES)
    # A late joiner still has a closed period: an open one that begins today has no room for an event.
    joins_late = random.randrange(LATE_JOINER_EVERY) == 0
    missed_periods = random.randint(1, PERIODS_PER_CUSTOMER - 2) if joins_late else 0
    return Customer(
        customer_id=f"cus_{number:06d}",
        anchor_day=anchor_day,
        status="trialing" if is_idle else status,
        periods=monthly_periods(anchor_day, horizon, PERIODS_PER_CUSTOMER)[missed_periods:],
        event_count=event_count,
    )


def _skewed_shares(total: int, customers: int, idle: frozenset[int], random: Random) -> list[int]:
    """Split `total` by Zipf's law over the customers that are not idle, in integers, so that none is lost."""
    ranks = list(range(1, customers + 1))
    random.shuffle(ranks)
    weights = [0 if index in idle else ZIPF_SCALE // rank for index, rank in enumerate(ranks)]
    running = list(accumulate(weights, initial=0))
    bounds = [total * weight // running[-1] for weight in running]
    return [end - start for start, end in pairwise(bounds)]
