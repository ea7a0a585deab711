"""`recon hold` and `recon release`: exclude some customers' counters from repairs for a while."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from recon_pipeline.core.errors import one_line
from recon_pipeline.core.instants import parse_until
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.billing import billing_database
from recon_pipeline.faces.console import err, out
from recon_pipeline.faces.user import user_name
from recon_pipeline.settings import Settings
from recon_pipeline.store.counters import holds as store
from recon_pipeline.store.counters.holds import Hold
from recon_pipeline.store.postgres.clock import now
from recon_pipeline.store.postgres.database import begin
from recon_pipeline.store.records.customers import require_known_customers


@dataclass(frozen=True)
class Held:
    """The result of `recon hold`.

    Attributes:
        holds: Those in force on the customers.
        counters: How many counters each customer has in the months.
        months: The months that were asked for; none for every month.
        until: When the hold ends.
    """

    holds: tuple[Hold, ...]
    counters: Mapping[str, int]
    months: tuple[BillingMonth, ...]
    until: datetime


def hold(
    settings: Settings, customers: Sequence[str], months: Sequence[BillingMonth], *, reason: str, until: str
) -> Held:
    """Hold the customers; returns when no repair of them is in progress any more.

    Args:
        settings: Name the database.
        customers: By gateway_customer_id.
        months: None for every month.
        reason: Why.
        until: When it ends, as `parse_until` reads it.

    Raises:
        ReconError: The end cannot be read, a customer is not known, or the database cannot be used.
    """
    with billing_database(settings).connection() as connection:
        with begin(connection):
            ends = parse_until(until, now=now(connection))
            require_known_customers(connection, customers)
        store.hold(connection, customers, months, reason=reason, held_by=user_name(), until=ends)
        with begin(connection):
            in_force = tuple(one for one in store.open_holds(connection) if one.gateway_customer_id in customers)
            counters = store.count_counters(connection, customers, months)
    return Held(in_force, counters, tuple(months), ends)


def release(
    settings: Settings, customers: Sequence[str], months: Sequence[BillingMonth], *, reason: str | None
) -> tuple[Hold, ...]:
    """End holds of the customers, of these months or of all; returns those that this ended."""
    with billing_database(settings).connection() as connection:
        with begin(connection):
            require_known_customers(connection, customers)
        ended = store.release(connection, customers, months, reason=reason, released_by=user_name())
    return tuple(ended)


def held_as_json(held: Held) -> dict[str, Any]:
    """The one object of `recon hold --json`."""
    return {"success": True, "holds": [asdict(one) for one in held.holds], "counters": held.counters}


def show_held(held: Held) -> None:
    """The same for a person."""
    named = f" of {', '.join(month.key for month in held.months)}" if held.months else ""
    for customer, count in held.counters.items():
        out.print(
            f"{customer}: {count:,} counters{named} are left alone until {held.until:%Y-%m-%d %H:%M} UTC.",
            markup=False,
            soft_wrap=True,
        )
        if not count:
            err.print(f"{customer} has no counter{named}: is the name right?", style="yellow", markup=False)
    ending = "recon release --customer " + " --customer ".join(shlex.quote(customer) for customer in held.counters)
    out.print(f"They are reported as held. To end it before: {ending}", markup=False, soft_wrap=True)


def released_as_json(ended: Sequence[Hold]) -> dict[str, Any]:
    """The one object of `recon release --json`."""
    return {"success": True, "released": [asdict(one) for one in ended]}


def show_released(ended: Sequence[Hold]) -> None:
    """The same for a person."""
    for one in ended:
        month = one.partition or "every month"
        out.print(f"{one_line(one.gateway_customer_id)}, {month}: repaired again from the next run on.", markup=False)
    if not ended:
        out.print("There was no such hold.")
