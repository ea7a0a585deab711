"""Sends the events of a population through the application's recorder, over several connections at once.

The events of one customer are dealt out over all connections, so that busy counters are really
contended, while what each event says is fixed by the population. Deadlocks cannot happen: a batch is one
transaction and in the order of the keys, so every transaction locks its counters in that order.
A failure leaves whole batches behind, never half of one.
"""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Any

import psycopg

from recon_pipeline.core.errors import ReconError
from recon_pipeline.faces.demo.population import GATEWAY_NAME, METERED, DemoEvent, Population
from recon_pipeline.faces.demo.statements import statement

CONNECTIONS = 4
# Long enough to spare round trips, short enough that a busy counter's lock is soon free again.
BATCH_EVENTS = 250

Batch = tuple[DemoEvent, ...]


class RecordingError(ReconError):
    """The recorder did not take a batch as it was dealt."""


def insert_subscriptions(connection: psycopg.Connection[Any], population: Population) -> int:
    """Insert one row for each subscribed customer and commit; returns how many."""
    rows = [
        {
            "gateway_name": GATEWAY_NAME,
            "gateway_customer_id": customer.customer_id,
            "status": customer.status,
            "current_period_start": customer.subscription_period.start,
            "current_period_end": customer.subscription_period.end,
        }
        for customer in population.customers
        if customer.status is not None
    ]
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(statement("insert_subscription"), rows)
    return len(rows)


def record_events(
    database_url: str, population: Population, advance: Callable[[int], None], connections: int = CONNECTIONS
) -> int:
    """Record every event of the population; returns how many. `advance` is called from this thread alone.

    Raises:
        RecordingError: if an event's request id was there already, so that the recorder skipped it.
        psycopg.Error: whatever the database refused; the batches before it are committed.
    """
    recorded_count = 0
    with ExitStack() as stack:
        idle: SimpleQueue[psycopg.Connection[Any]] = SimpleQueue()
        for _ in range(connections):
            idle.put(stack.enter_context(_connect(database_url)))
        # Left before the connections are closed: it waits for the batches still being recorded.
        pool = stack.enter_context(ThreadPoolExecutor(connections, thread_name_prefix="demo-traffic"))
        pending: set[Future[int]] = set()
        for batch in deal(population, hands=connections):
            pending.add(pool.submit(_record_batch, idle, batch))
            if len(pending) >= 2 * connections:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                recorded_count += _collect(done, advance)
        recorded_count += _collect(wait(pending).done, advance)
    return recorded_count


def deal(population: Population, hands: int, batch_events: int = BATCH_EVENTS) -> Iterator[Batch]:
    """Deal the events out like cards and yield each hand when it is full.

    Hands that fill together hold events of the same keys; each is in the order of its keys.
    """
    dealt: list[list[DemoEvent]] = [[] for _ in range(hands)]
    for number, event in enumerate(population.events()):
        hand = dealt[number % hands]
        hand.append(event)
        if len(hand) == batch_events:
            yield tuple(hand)
            hand.clear()
    yield from (tuple(hand) for hand in dealt if hand)


def _connect(database_url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(database_url, autocommit=True, prepare_threshold=None)


def _record_batch(idle: SimpleQueue[psycopg.Connection[Any]], batch: Batch) -> int:
    connection = idle.get()
    try:
        row = connection.execute(statement("record_events"), {**METERED, "events": _json(batch)}).fetchone()
    finally:
        idle.put(connection)
    recorded_count = row[0] if row else 0
    if recorded_count != len(batch):
        raise RecordingError(
            f"The recorder took {recorded_count} of {len(batch)} events from {batch[0].request_id} on: "
            "their request ids were there already.",
            changed="The events that were new stay recorded.",
            fix="Play the month in an empty database that nothing else writes to.",
        )
    return len(batch)


def _json(batch: Batch) -> str:
    """The batch as one parameter: the driver would take longer over arrays than Postgres over the events."""
    return json.dumps(
        [
            {
                "gateway_customer_id": event.customer_id,
                "request_id": event.request_id,
                "period_start": event.period.start.isoformat(),
                "period_end": event.period.end.isoformat(),
                "quantity": event.quantity,
                "event_timestamp": event.event_timestamp.isoformat(),
            }
            for event in batch
        ]
    )


def _collect(done: set[Future[int]], advance: Callable[[int], None]) -> int:
    collected = 0
    for future in done:
        collected += future.result()
        advance(future.result())
    return collected
