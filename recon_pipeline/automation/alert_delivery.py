"""Sends the messages in the outbox with Apprise.

Invariant: a message leaves the outbox only when its target has accepted it. A target that fails, hangs or answers one
byte a minute does not delay the others, and delays the caller by at most `DELIVERY_SECONDS`. Apprise's text about a
failure is shown; addresses, which contain secrets, are not.
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
"""In one evaluation of the sensor, which Dagster cancels after 60."""

if TYPE_CHECKING:
    from apprise import NotifyBase

FAILURES_IN_A_ROUND = 2
"""After one failure, the next message is tried too: if it is accepted, the first failed because of its content."""

_LONGEST_ERROR = 300
_APPRISE = logging.getLogger("apprise")


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


def send(target: AlertTarget, message: Message) -> str | None:
    """Send one message now; return why that failed, or None."""
    from apprise import NotifyFormat, NotifyType, OverflowMode

    tone = {Severity.ERROR: NotifyType.FAILURE, Severity.WARN: NotifyType.WARNING}[message.severity]
    try:
        with _apprise_warnings():  # which quote invalid tokens
            service = _service(target)
        if service is None:
            return f"Apprise has no service {target.kind}://, or a part of the address is missing"
        with _apprise_warnings() as warnings:
            is_sent = service.notify(
                body=message.body,
                title=message.title,
                notify_type=NotifyType.SUCCESS if message.is_resolved else tone,
                body_format=NotifyFormat.TEXT,
                # A text too long for a service is cut at its end: refused as a whole it would be tried for ever.
                overflow=None if "overflow=" in target.url else OverflowMode.TRUNCATE,
            )
    except Exception as error:  # noqa: BLE001 - a hundred services behind one call; the text may contain a secret
        return f"{target.kind} failed with {type(error).__name__}"
    return None if is_sent else ("; ".join(warnings) or f"{target.kind} gave no reason")[:_LONGEST_ERROR]


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
        attempts.append(Attempt(target.name, "", f"the outbox could not be used: {error.what}"))


@contextmanager
def _apprise_warnings() -> Iterator[list[str]]:
    """Apprise's warnings in this thread; they reach no other log, because they may quote an address."""
    warnings: list[str] = []
    handler = _OfThisThread(warnings)
    _APPRISE.propagate = False
    _APPRISE.addHandler(handler)
    try:
        yield warnings
    finally:
        _APPRISE.removeHandler(handler)


class _OfThisThread(logging.Handler):
    """Collects the warnings of the thread that created it."""

    def __init__(self, warnings: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._warnings = warnings
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Collect it."""
        if record.thread == self._thread:
            self._warnings.append(record.getMessage().strip())
