"""The mishaps after the traffic: each makes counters drift from the log in one realistic way.

Invariants: no two mishaps touch the same key; each names exactly the keys that drift by it and the units
of usage they drift by; a counter crosses its limit only where the story says so. Together they drift
about 2 % of the keys, so that a person sees a repair and not the guards against an enormous one.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any

import psycopg

from recon_pipeline.core.words import many
from recon_pipeline.faces.demo.counters import (
    QUOTA,
    CounterKey,
    LateEvent,
    PickedCounter,
    insert_counters,
    insert_late_events,
    list_untouched_counters,
    move_counters,
    pick_counters,
    pick_keys,
)
from recon_pipeline.faces.demo.scene import Mishap, Scene, at_minute

# Counters nearer to their limit are left to the mishaps that are about the limit. In units of usage.
MARGIN = 10
LATE_EVENTS_PER_KEY = 3
LATE_QUANTITIES = (1, 1, 1, 2, 3)
ABSURD_COUNT = 1_000_000
MOST_ORPHANS = 12

_Connection = psycopg.Connection[Any]


def customers_let_through(connection: _Connection, random: Random, scene: Scene) -> Mishap:
    """Counters fall below a limit that the events have reached: the customers go on for free."""
    picked = pick_counters(
        connection, random, "pick_counters_by_limit", now=scene.now, least_above=0, most_above=QUOTA.paid, limit=4
    )
    moves = [(counter, counter.usage_limit - random.randint(1, 2 * MARGIN)) for counter in picked]
    lost = sum(counter.usage_count - after for counter, after in moves)
    return Mishap(
        "limit not enforced",
        f"A crash took {many(lost, 'unit')} off {many(len(moves), 'counter')} at the limit: customers who "
        "have used it up go on for free.",
        move_counters(connection, moves),
        lost,
    )


def customers_blocked(connection: _Connection, random: Random, scene: Scene) -> Mishap:
    """Counters rise to a limit that the events are below: the customers are blocked."""
    picked = pick_counters(
        connection, random, "pick_counters_by_limit", now=scene.now, least_above=-25, most_above=-1, limit=3
    )
    moves = [(counter, counter.usage_limit + random.randint(0, 2 * MARGIN)) for counter in picked]
    added = sum(after - counter.usage_count for counter, after in moves)
    return Mishap(
        "blocked by mistake",
        f"A retried script added {many(added, 'unit')} to {many(len(moves), 'counter')} just below the "
        "limit: customers who have not used it up are blocked.",
        move_counters(connection, moves),
        added,
    )


def counter_edited_by_hand(connection: _Connection, random: Random, scene: Scene) -> Mishap:
    """Somebody sets one counter to an absurd value."""
    (counter,) = pick_counters(
        connection,
        random,
        "pick_counters_by_limit",
        now=scene.now,
        least_above=-QUOTA.paid,
        most_above=-1,
        limit=1,
    )
    return Mishap(
        "edited by hand",
        f"Somebody set the counter of {counter.gateway_customer_id} from {counter.usage_count:,} to "
        f"{ABSURD_COUNT:,}, and the customer is blocked.",
        move_counters(connection, [(counter, ABSURD_COUNT)]),
        ABSURD_COUNT - counter.usage_count,
    )


def lost_increments(connection: _Connection, random: Random, scene: Scene) -> Mishap:
    """A worker crashes between event and increment."""
    moment = scene.working_hour(random, days_ago=random.randint(18, 24))
    picked = _counters_at(connection, random, moment, limit=scene.share(6, at_least=3))
    moves = [(counter, counter.usage_count - random.randint(1, min(MARGIN, counter.usage_count))) for counter in picked]
    lost = sum(counter.usage_count - after for counter, after in moves)
    return Mishap(
        "lost increments",
        f"A worker crashed at {at_minute(moment)} and lost {many(lost, 'unit')} of {many(len(moves), 'counter')}.",
        move_counters(connection, moves),
        lost,
    )


def replayed_queue(connection: _Connection, random: Random, scene: Scene) -> Mishap:
    """Increments are applied a second time, without new events."""
    moment = scene.working_hour(random, days_ago=random.randint(45, 51))
    picked = _counters_at(connection, random, moment, limit=scene.share(5, at_least=3))
    moves = [(counter, counter.usage_count + random.randint(1, min(MARGIN, counter.usage_count))) for counter in picked]
    added = sum(after - counter.usage_count for counter, after in moves)
    return Mishap(
        "replayed queue",
        f"A queue was replayed from {at_minute(moment)} on and added {many(added, 'unit')} to "
        f"{many(len(moves), 'counter')} a second time.",
        move_counters(connection, moves),
        added,
    )


def ingestion_outages(connection: _Connection, random: Random, scene: Scene) -> Mishap:
    """Twice for an hour, events reach the log late and their counters never; some have no counter at all."""
    outages = [
        scene.working_hour(random, days_ago=random.randint(75, 81)),
        scene.working_hour(random, days_ago=random.randint(1, 2)),
    ]
    late: list[LateEvent] = []
    for outage in outages:
        counters = _counters_at(connection, random, outage, limit=scene.share(2, at_least=2))
        late += _late_events(random, [counter.key for counter in counters], outage)
    uncounted = pick_keys(
        connection,
        random,
        "pick_uncounted_periods",
        moment=outages[1],
        limit=scene.share(2, at_least=2),
        at_least=2,
    )
    late += _late_events(random, uncounted, outages[1])
    insert_late_events(connection, late)
    keys = tuple(dict.fromkeys(event.key for event in late))
    quantity = sum(event.quantity for event in late)
    return Mishap(
        "ingestion outages",
        f"Ingestion was down for an hour from {at_minute(outages[0])} and again from {at_minute(outages[1])}: "
        f"{many(len(late), 'event')} of {many(quantity, 'unit')} came late and were never counted, "
        f"for {many(len(keys), 'key')}, {len(uncounted):,} of them without a counter.",
        keys,
        quantity,
    )


def orphaned_counters(connection: _Connection, random: Random, scene: Scene) -> Mishap:
    """An import leaves counters behind for customers who never sent an event."""
    keys = pick_keys(
        connection, random, "pick_idle_periods", limit=min(MOST_ORPHANS, scene.share(1, at_least=2)), at_least=2
    )
    counts = [(key, random.randint(1, QUOTA.free - 1)) for key in keys]
    insert_counters(connection, counts)
    quantity = sum(count for _, count in counts)
    return Mishap(
        "orphaned counters",
        f"An import left {many(len(keys), 'counter')} of {many(quantity, 'unit')} to customers who never "
        "sent an event.",
        keys,
        quantity,
    )


# First those that need counters near their limit, which are few; orphans before late events, because
# both look for customers without counters.
MISHAPS: tuple[Callable[[_Connection, Random, Scene], Mishap], ...] = (
    customers_let_through,
    customers_blocked,
    counter_edited_by_hand,
    lost_increments,
    replayed_queue,
    orphaned_counters,
    ingestion_outages,
)


def let_it_all_happen(
    connection: _Connection, random: Random, now: datetime, advance: Callable[[int], None]
) -> tuple[Mishap, ...]:
    """Let every mishap happen in one transaction, so that all of them did or none.

    Raises:
        MonthTooSmallError: A mishap found nothing to happen to.
    """
    happened: list[Mishap] = []
    with connection.transaction():
        scene = Scene(now, list_untouched_counters(connection))
        for mishap in MISHAPS:
            happened.append(mishap(connection, random, scene))
            advance(1)
    return tuple(happened)


def _counters_at(connection: _Connection, random: Random, moment: datetime, limit: int) -> tuple[PickedCounter, ...]:
    """At least two counters of periods that contain the moment."""
    return pick_counters(connection, random, "pick_counters_at", moment=moment, margin=MARGIN, limit=limit, at_least=2)


def _late_events(random: Random, keys: Sequence[CounterKey], outage: datetime) -> list[LateEvent]:
    return [
        LateEvent(
            key=key,
            request_id=f"late_{key.gateway_customer_id.removeprefix('cus_')}_{outage:%Y%m%d}_{number}",
            quantity=random.choice(LATE_QUANTITIES),
            event_timestamp=outage + timedelta(seconds=random.randrange(3600)),
        )
        for key in keys
        for number in range(1, random.randint(1, LATE_EVENTS_PER_KEY) + 1)
    ]
