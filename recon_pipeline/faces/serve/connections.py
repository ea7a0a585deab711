"""Bounds on what callers can take from this process, which uvicorn does not have.

Invariant: a request's head has at most `HEAD_BYTES`, however it arrives, and is complete within `HEAD_SECONDS`; an
answer is taken within `ANSWER_SECONDS`; one address has at most `CONNECTIONS_PER_ADDRESS` connections, and through a
proxy as many requests. A proxy's own connections are not counted, since it speaks for many.
"""

import asyncio
import logging
from collections import Counter

import h11
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from recon_pipeline.faces.serve.access import Proxies, neighborhood

HEAD_SECONDS = 10.0
HEAD_BYTES = 16_384
ANSWER_SECONDS = 30.0
"""From the moment at which all of an answer was given to the kernel."""

CONNECTIONS = 256
CONNECTIONS_PER_ADDRESS = 32

_TOO_MANY_RETRY_SECONDS = 10
_log = logging.getLogger(__name__)


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 with bounds."""

    proxies: Proxies
    """Set on a subclass by `bounded`: uvicorn makes the instances."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Start the timer, or drop the connection if its address has too many."""
        super().connection_made(transport)
        self._room = HEAD_BYTES
        self._is_refused = False
        self._patience = self.loop.call_later(HEAD_SECONDS, self._drop_without_head)
        address = self.client[0] if self.client else ""
        if address not in self.proxies and self._connections_of(neighborhood(address)) > CONNECTIONS_PER_ADDRESS:
            _log.warning("Dropped a connection of %s, which has %d others.", address, CONNECTIONS_PER_ADDRESS)
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._patience.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read a head up to its bound; h11 bounds only heads that arrive in pieces."""
        if self._is_refused:
            return
        if self.cycle is None:
            head, data = data[: self._room], data[self._room :]
            self._room -= len(head)
            if head:
                super().data_received(head)
            if data and self.cycle is None and not self.transport.is_closing():
                self._refuse_head()
                return
        if data and not self.transport.is_closing():
            super().data_received(data)

    def on_response_complete(self) -> None:
        """Start the timer for a caller that does not read its answer."""
        super().on_response_complete()
        self._patience.cancel()
        self._patience = self.loop.call_later(ANSWER_SECONDS, self.transport.abort)

    def _connections_of(self, address: str) -> int:
        return sum(
            neighborhood(one.client[0]) == address
            for one in self.connections
            if isinstance(one, BoundedProtocol) and one.client
        )

    def _refuse_head(self) -> None:
        """Answer, and leave the rest unread until the caller closes: a reset would take the answer from it."""
        self._is_refused = True
        body = b'{"error":"Request header fields too large"}'
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        for event in (h11.Response(status_code=431, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.write_eof()

    def _drop_without_head(self) -> None:
        if self.cycle is None:
            self.transport.abort()


def bounded(proxies: Proxies) -> type[BoundedProtocol]:
    """The protocol, as uvicorn takes it."""
    return type("BoundedProtocol", (BoundedProtocol,), {"proxies": proxies})


class PerAddress:
    """Bounds the requests in progress of one address; behind a proxy, of the address that the proxy names."""

    def __init__(self, app: ASGIApp, proxies: Proxies) -> None:
        """Wrap an application."""
        self._app = app
        self._proxies = proxies
        self._at_work: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on."""
        client = scope.get("client")
        if client is None or client[0] in self._proxies:
            await self._app(scope, receive, send)
            return
        address = neighborhood(client[0])
        if self._at_work[address] >= CONNECTIONS_PER_ADDRESS:
            retry = {"Retry-After": str(_TOO_MANY_RETRY_SECONDS)}
            await JSONResponse({"error": "Too many connections"}, 429, retry)(scope, receive, send)
            return
        self._at_work[address] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._at_work[address] -= 1
            if not self._at_work[address]:
                del self._at_work[address]
