"""Sends what is in the outbox, by Apprise.

Invariant: a message leaves the outbox only when its target took it. Whatever a target does (refuse, hang, answer a
byte a minute) costs the others nothing and the caller no more than `DELIVERY_SECONDS`. What Apprise says of a failure
is shown; addresses, which hold secrets, are not.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recon_pipeline.core.alert_targets import AlertTarget
from recon_pipeline.core.alerts import Message, Severity
from recon_pipeline.core.errors import ReconError
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.records import outbox

DELIVERY_SECONDS = 25.0
"""In one evaluation of the sensor, which Dagster gives up after 60."""

if TYPE_CHECKING:
    from apprise import NotifyBase

FAILURES_IN_A_ROUND = 2
"""After one, the next message is tried too: if that is taken, the first was refused for what it says."""

_LONGEST_ERROR = 300
_APPRISE = logging.getLogger("apprise")


@dataclass(frozen=True)
class Attempt:
    """One message sent to one target.

    Attributes:
        target: Its name.
        title: Of the message.
        error: Why the target did not take it, or None if it did.
    """

    target: str
    title: str
    error: str | None


def deliver(database: BillingDatabase, targets: Sequence[AlertTarget]) -> tuple[Attempt, ...]:
    """Send every message that is due, the oldest first; a target that fails is left alone for a while.

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


def send(target: AlertTarget, message: Message) -> str | None:
    """Send one message now; returns why that failed, or None."""
    from apprise import NotifyFormat, NotifyType, OverflowMode

    tone = {Severity.ERROR: NotifyType.FAILURE, Severity.WARN: NotifyType.WARNING}[message.severity]
    try:
        with _said_by_apprise():  # which quotes tokens that it does not like
            service = _service(target)
        if service is None:
            return f"Apprise knows no service {target.kind}://, or the address lacks a part of it"
        with _said_by_apprise() as said:
            is_sent = service.notify(
                body=message.body,
                title=message.title,
                notify_type=NotifyType.SUCCESS if message.is_resolved else tone,
                body_format=NotifyFormat.TEXT,
                # What is too long for a service is cut at its end: refused as a whole it would be tried for ever.
                overflow=None if "overflow=" in target.url else OverflowMode.TRUNCATE,
            )
    except Exception as error:  # noqa: BLE001 - a hundred services behind one call; the text may hold a secret
        return f"{target.kind} failed with {type(error).__name__}"
    return None if is_sent else ("; ".join(said) or f"{target.kind} gave no reason")[:_LONGEST_ERROR]


def _service(target: AlertTarget) -> "NotifyBase | None":
    from apprise import Apprise

    return Apprise.instantiate(target.url, suppress_exceptions=True)


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
        attempts.append(Attempt(target.name, "", f"the outbox was lost on the way: {error.what}"))


@contextmanager
def _said_by_apprise() -> Iterator[list[str]]:
    """What Apprise warns of in this thread; nothing of it reaches any other log, since it may quote an address."""
    said: list[str] = []
    handler = _OfThisThread(said)
    _APPRISE.propagate = False
    _APPRISE.addHandler(handler)
    try:
        yield said
    finally:
        _APPRISE.removeHandler(handler)


class _OfThisThread(logging.Handler):
    """Keeps the warnings that the thread that made it causes."""

    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._said = said
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        if record.thread == self._thread:
            self._said.append(record.getMessage().strip())
