"""Sends one message to one target, as its service reads it.

Invariant: nothing in a message mentions anybody. Apprise knows the services' addresses and answers; it gets a text that
`core/alert_markup.py` has escaped for the service. PagerDuty has a sender of its own, because Apprise cannot resolve an
incident. Apprise's text about a failure is shown; addresses, which contain secrets, are not.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from apprise import Apprise, AppriseAsset, NotifyBase, NotifyFormat, NotifyType, OverflowMode

from recon_pipeline.automation import pagerduty
from recon_pipeline.core import alert_markup
from recon_pipeline.core.alert_markup import Markup
from recon_pipeline.core.alert_targets import AlertTarget
from recon_pipeline.core.alerts import Message, Severity

_SERVICES: dict[str, tuple[str, Markup]] = {
    "NotifySlack": ("text", alert_markup.slack),
    "NotifyDiscord": ("markdown", alert_markup.markdown),
    "NotifyTelegram": ("html", alert_markup.telegram_html),
    "NotifyWorkflows": ("markdown", alert_markup.teams),
}
"""Apprise's class of a service; the format that Apprise gets, whatever the address says, and what makes it."""

_OTHERS: dict[str, Markup] = {
    "text": alert_markup.plain,
    "html": alert_markup.mail_html,
    "markdown": alert_markup.markdown,
}
_LENGTHS = {"NotifyDiscord": 4_096, "NotifyWorkflows": 20_000}
"""Of a text in an embed, and of the 28 KB that Teams takes; Apprise would cut at 2,000 and 1,000."""

_LONGEST_ERROR = 300
_APPRISE = logging.getLogger("apprise")


def send(target: AlertTarget, message: Message) -> str | None:
    """Send one message now; return why that failed, or None."""
    try:
        with _apprise_warnings():  # which quote invalid tokens
            service = _service(target)
        if service is None:
            return f"Apprise has no service {target.kind}://, or a part of the address is missing"
        if type(service).__name__ == "NotifyPagerDuty":
            return pagerduty.send(service, message)
        with _apprise_warnings() as warnings:
            is_sent = _notify(service, message, may_split="overflow=" in target.url)
    except Exception as error:  # noqa: BLE001 - a hundred services behind one call; the text may contain a secret
        return f"{target.kind} failed with {type(error).__name__}"
    return None if is_sent else ("; ".join(warnings) or f"{target.kind} gave no reason")[:_LONGEST_ERROR]


def _service(target: AlertTarget) -> NotifyBase | None:
    # The name of the sender in a mail, and below a message.
    asset = AppriseAsset(app_id="recon_pipeline", app_desc="recon_pipeline")
    return Apprise.instantiate(target.url, asset=asset, suppress_exceptions=True)


def _notify(service: Any, message: Message, *, may_split: bool) -> bool:
    tone = {Severity.ERROR: NotifyType.FAILURE, Severity.WARN: NotifyType.WARNING}[message.severity]
    markup = _prepare(service, type(service).__name__)
    room = service.body_maxlen - max(service.title_maxlen, len(message.title) + 10)
    return service.notify(
        body=markup(message.body) if may_split else alert_markup.cut(message.body, markup, room),
        title=message.title,
        notify_type=NotifyType.SUCCESS if message.is_resolved else tone,
        body_format=NotifyFormat(service.notify_format),
        # A text too long for a service is cut at its end: refused as a whole it would be tried for ever.
        overflow=None if may_split else OverflowMode.TRUNCATE,
    )


def _prepare(service: Any, name: str) -> Markup:
    if name not in _SERVICES:
        return _OTHERS[NotifyFormat(service.notify_format).value]
    chosen, markup = _SERVICES[name]
    service.notify_format = NotifyFormat(chosen)
    service.body_maxlen = _LENGTHS.get(name, service.body_maxlen)
    if name == "NotifySlack" and not service.template:
        service.use_blocks = False  # whose plain text has no links
    elif name == "NotifyDiscord":
        # Apprise would ping whom the message names; `ping=` of the address is who may be.
        find = service.ping_payload
        service.ping_payload = lambda *_: find(" ".join(service.ping))
    return markup


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
