"""Sends the messages in the outbox.

Invariant: a message leaves the outbox only when its target has accepted it. A target that fails, hangs or answers one
byte a minute does not delay the others, and delays the caller by at most `DELIVERY_SECONDS`.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from recon_pipeline.core.alert_targets import AlertTarget
from recon_pipeline.core.alerts import Message
from recon_pipeline.core.errors import ReconError
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.records import outbox

DELIVERY_SECONDS = 25.0
"""In one evaluation of the sensor, which Dagster cancels after 60."""

FAILURES_IN_A_ROUND = 2
"""After one failure, the next message is tried too: if it is accepted, the first failed because of its content."""


@dataclass(frozen=True)
class Attempt:
    """One message sent to one target.

    Attributes:
        target: Its name.
        title: Of the message.
        error: Why the delivery failed, or None if it succeeded.
    """

    target: str
    title: str
    error: str | None


def send_once(target: AlertTarget, message: Message) -> Attempt:
    """Send one message to one target now."""
    # Only now: Apprise takes half a second, and most evaluations send nothing.
    from recon_pipeline.automation.alert_services import send  # noqa: PLC0415

    return Attempt(target.name, message.title, send(target, message))


def send_to_all(targets: Sequence[AlertTarget], message: Message) -> tuple[Attempt, ...]:
    """Send one message to each target now, whatever its severities, without the outbox; one attempt for each."""
    return _side_by_side(targets, lambda target, _: (send_once(target, message),))


def deliver(database: BillingDatabase, targets: Sequence[AlertTarget]) -> tuple[Attempt, ...]:
    """Send every message that is due, the oldest first; after a failure a target is skipped for a while.

    Raises:
        ReconError: The outbox cannot be reached.
    """
    with database.transaction() as connection:
        outbox.redirect(connection, targets)
    return _side_by_side(targets, lambda target, deadline: _deliver_to(database, target, deadline))


def _side_by_side(
    targets: Sequence[AlertTarget], send: Callable[[AlertTarget, float], Iterable[Attempt]]
) -> tuple[Attempt, ...]:
    """What was tried, target by target; what has not ended within `DELIVERY_SECONDS` failed.

    Args:
        targets: Each has a thread of its own.
        send: Gets a target and the deadline, by the monotonic clock.
    """
    made = {target.name: list[Attempt]() for target in targets}
    deadline = time.monotonic() + DELIVERY_SECONDS

    def send_to(target: AlertTarget) -> None:
        for attempt in send(target, deadline):
            made[target.name].append(attempt)

    threads = [threading.Thread(target=send_to, args=(target,), daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    attempts: list[Attempt] = []
    for thread, target in zip(threads, targets, strict=True):
        thread.join(max(0.0, deadline - time.monotonic()))
        attempts += made[target.name]
        if thread.is_alive():
            attempts.append(Attempt(target.name, "", f"no answer within {DELIVERY_SECONDS:.0f} s"))
    return tuple(attempts)


def _deliver_to(database: BillingDatabase, target: AlertTarget, deadline: float) -> Iterator[Attempt]:
    last_tried, failures = 0, 0
    try:
        with database.transaction() as connection:
            if not outbox.is_due(connection, target):
                return
        while failures < FAILURES_IN_A_ROUND and time.monotonic() < deadline:
            with database.transaction() as connection:
                claimed = outbox.claim(connection, target, after=last_tried)
            if claimed is None:
                return
            last_tried = claimed.alert_id
            made = send_once(target, claimed.message)
            with database.transaction() as connection:
                if made.error is None:
                    outbox.note_delivered(connection, claimed, target)
                else:
                    outbox.note_undelivered(connection, claimed, target, made.error)
            yield made
            failures += made.error is not None
    except ReconError as error:
        yield Attempt(target.name, "", f"the outbox could not be used: {error.what}")
