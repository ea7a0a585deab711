"""Slack, Discord, Telegram, Teams and PagerDuty in tests: one real HTTP server that answers as each of them does.

Apprise sends to the services' own addresses, which `reroute` leads here; everything else on the way is real.
"""

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
from apprise.plugins.pagerduty import PAGERDUTY_API_LOOKUP
from requests import PreparedRequest
from requests.adapters import HTTPAdapter

SLACK = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7"
DISCORD = "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js"
TELEGRAM = "tgram://123456789:alphanumeric_chars/12315544/"
TEAMS = "workflows://prod-1.westeurope.logic.azure.com:443/643e69f83c8944/signatureAbc"
PAGERDUTY = "pagerduty://hunter2integrationkey@unused"


@dataclass
class Services:
    """What the services took.

    Attributes:
        received: By host, in the order in which it came.
        incidents: PagerDuty's, by key: whether it is open.
        answers_with: A status that PagerDuty answers with instead, or None.
    """

    port: int = 0
    received: defaultdict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    incidents: dict[str, bool] = field(default_factory=dict)
    answers_with: int | None = None

    def only(self, host: str) -> dict[str, Any]:
        """The one message that a service took."""
        (message,) = self.received[host]
        return message

    def answer(self, host: str, message: dict[str, Any]) -> tuple[int, str]:
        """What the service says to it."""
        if host == "api.telegram.org" and not _Telegram.takes(message["text"]):
            return 400, '{"ok": false, "description": "Bad Request: can\'t parse entities"}'
        if host.endswith("pagerduty.com"):
            if self.answers_with is not None:
                return self.answers_with, '{"status": "invalid event"}'
            is_opened = message["event_action"] == "trigger"
            if is_opened or message["dedup_key"] in self.incidents:
                self.incidents[message["dedup_key"]] = is_opened
        self.received[host].append(message)
        return {"hooks.slack.com": (200, "ok"), "events.pagerduty.com": (202, "{}")}.get(host, (200, '{"ok": true}'))


class _Telegram(HTMLParser):
    """Telegram refuses a text with a tag that it does not know."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.is_refused = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.is_refused |= tag not in ("a", "b", "code", "i", "pre")

    def handle_decl(self, decl: str) -> None:
        self.is_refused = True

    @classmethod
    def takes(cls, text: str) -> bool:
        """Whether it sends this text."""
        parser = cls()
        parser.feed(text)
        parser.close()
        return not parser.is_refused and len(text) <= 4096


@contextmanager
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """All of them, for whoever sends to their addresses meanwhile."""
    kept = Services()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, answer = kept.answer(self.path.split("/")[1], message)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.port = server.server_port
    _reroute(monkeypatch, kept.port)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def _reroute(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    send = HTTPAdapter.send

    def send_here(adapter: HTTPAdapter, request: PreparedRequest, **options: Any) -> Any:
        there = urlsplit(request.url or "")
        if there.hostname != "127.0.0.1":
            request.url = f"http://127.0.0.1:{port}/{there.hostname}{there.path}"
        return send(adapter, request, **options)

    monkeypatch.setattr(HTTPAdapter, "send", send_here)
    for region, url in PAGERDUTY_API_LOOKUP.items():
        there = urlsplit(url)
        monkeypatch.setitem(PAGERDUTY_API_LOOKUP, region, f"http://127.0.0.1:{port}/{there.hostname}{there.path}")
