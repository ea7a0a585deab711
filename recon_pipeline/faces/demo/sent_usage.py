"""Usage that was sent to Stripe, and what went wrong with it: one customer for each class of difference.

Invariant: each customer has one event, whose counter is right; only what Stripe has of it is not. All of it is a usage
of its own, which no other part of the demo touches.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg

from recon_pipeline.core.parity.classes import LARGEST_EXACT, DifferenceClass
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.faces.demo.fake_stripe import FakeStripe
from recon_pipeline.faces.demo.population import GATEWAY_NAME
from recon_pipeline.faces.demo.statements import statement

SENT_USAGE = MeteredUsage(GATEWAY_NAME, "api_calls")
_DAY, _HOUR, _MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)


@dataclass(frozen=True)
class SentUsage:
    """One customer's event, and how it was sent.

    Attributes:
        kind: The class of the difference that Stripe has; None: it has none.
        units: In the log.
        age: Before the present.
        was_sent: Stripe got it.
        is_of_last_period: Its period is over, and the invoice is final.
    """

    kind: DifferenceClass | None
    units: int
    age: timedelta
    was_sent: bool = False
    is_of_last_period: bool = False

    @property
    def customer(self) -> str:
        """Named after what happened."""
        return f"cus_{self.kind or 'counted'}"

    @property
    def request_id(self) -> str:
        """With which it is sent, too."""
        return f"{self.customer}-1"


USAGES = (
    SentUsage(None, 40, 3 * _DAY, was_sent=True),
    SentUsage(DifferenceClass.NOT_COMPARABLE, 12, 3 * _DAY, was_sent=True),
    SentUsage(DifferenceClass.LAGGING, 10, 10 * _MINUTE, was_sent=True),
    SentUsage(DifferenceClass.REJECTED, 60, 4 * _DAY),
    SentUsage(DifferenceClass.MISPLACED, 25, 20 * _DAY - 2 * _HOUR),
    SentUsage(DifferenceClass.MISSING, 300, 5 * _DAY),
    SentUsage(DifferenceClass.EXPIRED, 90, 45 * _DAY, is_of_last_period=True),
    SentUsage(DifferenceClass.OVER_REPORTED, 55, 6 * _DAY, was_sent=True),
    SentUsage(DifferenceClass.FINALIZED, 75, 25 * _DAY, is_of_last_period=True),
)
FIRST_PERIOD_AGE, AGGREGATED_AFTER = 50 * _DAY, 15 * _MINUTE


def use_and_send(database_url: str, stripe: FakeStripe, *, now: datetime) -> None:
    """Record all of it, and send what was sent; Stripe's clock is at `now` afterwards.

    Raises:
        psycopg.Error: The database refused something; nothing was recorded.
    """
    present = now.replace(second=0, microsecond=0)
    stripe.aggregates_after = AGGREGATED_AFTER
    with psycopg.connect(database_url, prepare_threshold=None) as connection:
        for usage in USAGES:
            used_at = present - usage.age
            _record(connection, usage, used_at, present)
            stripe.now = used_at
            if usage.was_sent:
                stripe.send(usage.customer, usage.units, used_at, usage.request_id)
            _go_wrong(stripe, usage, used_at)
    stripe.now = now


def _record(connection: psycopg.Connection, usage: SentUsage, used_at: datetime, present: datetime) -> None:
    start = present - (FIRST_PERIOD_AGE if usage.is_of_last_period else 20 * _DAY)
    row = {
        "gateway_name": SENT_USAGE.gateway_name,
        "gateway_customer_id": usage.customer,
        "usage_type": SENT_USAGE.usage_type,
        "request_id": usage.request_id,
        "quantity": usage.units,
        "period_start": start,
        "period_end": start + 30 * _DAY,
        "used_at": used_at,
    }
    connection.execute(statement("insert_billed_usage"), row)


def _go_wrong(stripe: FakeStripe, usage: SentUsage, used_at: datetime) -> None:
    customer, units = usage.customer, usage.units
    if usage.kind == DifferenceClass.NOT_COMPARABLE:  # another program sends nanoseconds
        stripe.send(customer, LARGEST_EXACT, used_at, f"{usage.request_id}-of-another-program")
    elif usage.kind == DifferenceClass.REJECTED:
        stripe.reject(usage.request_id)
    elif usage.kind == DifferenceClass.MISPLACED:  # in the period before
        stripe.send(customer, units, used_at - 3 * _HOUR, usage.request_id)
    elif usage.kind == DifferenceClass.OVER_REPORTED:  # Stripe refuses a repetition for a day
        stripe.now = used_at + 25 * _HOUR
        stripe.send(customer, units, used_at, usage.request_id)
