"""Alert targets in tests: real servers on loopback, which can be made to fail."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

DRIPPING_SECONDS = 20


@dataclass
class Webhook:
    """An HTTP server that keeps what is posted to it.

    Attributes:
        port: On loopback.
        answers_with: The status; None to take the request and never answer.
        refuses: A text; messages that hold it are answered with 400.
        drips: It answers one byte at a time, for `DRIPPING_SECONDS` or until it is released.
        has_dripped_out: Somebody has waited for all of such an answer.
        received: The bodies, in the order in which they came.
        refused: How many requests were not taken.
    """

    port: int
    answers_with: int | None = 200
    refuses: str | None = None
    drips: bool = False
    has_dripped_out: bool = False
    received: list[dict[str, Any]] = field(default_factory=list)
    refused: int = 0
    release: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """For Apprise; what stands in it is secret."""
        return f"json://app:hunter2secret@127.0.0.1:{self.port}/hunter2secret"

    @property
    def titles(self) -> list[str]:
        """Of what was received."""
        return [one["title"] for one in self.received]


@contextmanager
def webhook() -> Iterator[Webhook]:
    """A running one."""
    kept = Webhook(0)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if kept.answers_with is None:
                kept.release.wait(60)
                return
            if kept.drips:
                self._drip()
                return
            status = 400 if kept.refuses is not None and kept.refuses in str(body) else kept.answers_with
            if status < 300:
                kept.received.append(body)
            else:
                kept.refused += 1
            self.send_response(status)
            self.end_headers()

        def _drip(self) -> None:
            self.wfile.write(b"HTTP/1.1 200 ")
            for _ in range(DRIPPING_SECONDS):
                if kept.release.wait(1):
                    return
                self.wfile.write(b"O")
            kept.has_dripped_out = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        kept.release.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


@dataclass
class Mailbox:
    """What an SMTP server took."""

    port: int
    mails: list[EmailMessage] = field(default_factory=list)

    @property
    def url(self) -> str:
        """For Apprise."""
        return f"mailto://127.0.0.1:{self.port}/?from=recon@example.com&to=oncall@example.com&mode=insecure"

    def text_of(self, mail: EmailMessage) -> str:
        """All that can be read in a mail."""
        return " ".join(str(part.get_content()) for part in mail.walk() if not part.is_multipart())

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Keep it."""
        assert isinstance(envelope.content, bytes)
        mail = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 OK"


@contextmanager
def mailbox() -> Iterator[Mailbox]:
    """A running SMTP server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        kept = Mailbox(probe.getsockname()[1])
    controller = Controller(kept, hostname="127.0.0.1", port=kept.port)
    controller.start()
    try:
        yield kept
    finally:
        controller.stop()
