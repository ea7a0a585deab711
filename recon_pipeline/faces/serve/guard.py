"""Lets in who has a secret: one guard for all paths, so that wrong secrets are counted together.

Invariant: a request that starts or changes something needs a token, never a login, which a browser also sends when a
foreign page makes the request.
"""

import base64
import binascii
import hmac
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from recon_pipeline.faces.serve.access import Secrets, neighborhood

WRONG_SECRETS_PER_MINUTE = 10
"""From one address. A correct one is never refused: a flood of requests must lock out neither the cron nor a person."""

_bearer = HTTPBearer(auto_error=False, description="CRON_SECRET")


class RefusedError(Exception):
    """A request that gets an error response."""

    def __init__(self, status: int, error: str, **headers: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Guard:
    """Accepts requests with a secret."""

    def __init__(self, secrets: Secrets) -> None:
        """Take the secrets; if none is set for something, every request for it is refused."""
        self._changing = tuple(secret.encode() for secret in secrets.changing)
        self._reading = self._changing + tuple(secret.encode() for secret in secrets.reading)
        self._wrong = FixedWindowRateLimiter(MemoryStorage())

    async def to_change(
        self, request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
    ) -> None:
        """Let in who may start a run: with a token.

        Raises:
            RefusedError: 500 if no secret is set, 401 for a wrong one or none, 429 after too many wrong ones.
        """
        token = given.credentials.encode("utf-8", "replace") if given else None
        self._require(token, self._changing, request, login="Bearer")

    async def to_read(self, request: Request) -> None:
        """Let in who may look at pages: with a login, whose user name may be any, or a token.

        Raises:
            RefusedError: Like `to_change`.
        """
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        secret = None
        if scheme.lower() == "bearer":
            secret = given.strip().encode("utf-8", "replace")
        elif scheme.lower() == "basic":
            secret = _password(given)
        self._require(secret, self._reading, request, login='Basic realm="recon_pipeline", charset="UTF-8"')

    def _require(self, given: bytes | None, secrets: tuple[bytes, ...], request: Request, *, login: str) -> None:
        if not secrets:
            raise RefusedError(500, "Configuration error")
        # Each is compared in constant time, and all of them are compared.
        if given is not None and any([hmac.compare_digest(given, secret) for secret in secrets]):
            return
        address = neighborhood(request.client.host) if request.client else ""
        if given is None or self._wrong.hit(RateLimitItemPerMinute(WRONG_SECRETS_PER_MINUTE), address):
            raise RefusedError(401, "Unauthorized", WWW_Authenticate=login)
        raise RefusedError(429, "Too many requests", Retry_After="60")


def _password(credentials: str) -> bytes:
    """That of a login as RFC 7617 writes it, or b'' where it is none."""
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""
