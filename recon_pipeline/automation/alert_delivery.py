"""Sends the messages in the outbox.

Invariant: a message leaves the outbox only when its target has accepted it. A target that fails, hangs or answers one
byte a minute does not delay the others, and delays the caller by at most `DELIVERY_SECONDS`.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from recon_pipeline.automation.alert_services import send
from recon_pipeline.core.alert_targets import AlertTarget
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


def deliver(database: BillingDatabase, targets: Sequence[AlertTarget]) -> tuple[Attempt, ...]:
    """Send every message that is due, the oldest first; after a failure a target is skipped for a while.

    Raises:
        ReconError: The outbox cannot be reached.
    """
    with database.transaction() as connection:
        outbox.redirect(connection, targets)
    attempts: list[Attempt] = []
    deadline = time.monotonic() + DELIVERY_SECONDS
    threads = [
        threading.Thread(target=_deliver_to, args=(database, target, deadline, attempts), daemon=True)
        for target in targets
    ]
    for thread in threads:
        thread.start()
    for thread, target in zip(threads, targets, strict=True):
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            attempts.append(Attempt(target.name, "", f"no answer within {DELIVERY_SECONDS:.0f} s"))
    return tuple(attempts)


def _deliver_to(database: BillingDatabase, target: AlertTarget, deadline: float, attempts: list[Attempt]) -> None:
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
            error = send(target, claimed.message)
            with database.transaction() as connection:
                if error is None:
                    outbox.note_delivered(connection, claimed, target)
                else:
                    outbox.note_undelivered(connection, claimed, target, error)
            attempts.append(Attempt(target.name, claimed.message.title, error))
            failures += error is not None
    except ReconError as error:
        attempts.append(Attempt(target.name, "", f"the outbox could not be used: {error.what}"))
