"""The cron endpoint, a drop-in replacement for that of an application.

Invariant: only the token and `wait` of a request are used, and its body is never read. A response contains no details
of errors: they go to the log.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.exceptions import HTTPException

from recon_pipeline.core.errors import (
    DatabaseUnreachableError,
    OrchestratorUnreachableError,
    PutOffError,
    SchemaVersionError,
)
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.faces.reconciled import summarize
from recon_pipeline.faces.serve.answers import Accepted, Answer, Problem
from recon_pipeline.faces.serve.runner import BusyError, Runner, Started

CRON_PATH = "/api/cron/billing/reconcile-usage"
BAD_TOKENS_PER_MINUTE = 10
"""From one address. A correct token is never refused: a flood of requests must not lock the cron out."""

BUSY_RETRY_SECONDS = 15
UNREACHABLE_RETRY_SECONDS = 30
BODY_BYTES = 16_384

_Found = TypeVar("_Found")
_bearer = HTTPBearer(auto_error=False, description="CRON_SECRET")


class RefusedError(Exception):
    """A request that gets an error response."""

    def __init__(self, status: int, error: str, **headers: str) -> None:
        super().__init__(error)
        self.answer = JSONResponse({"error": error}, status, {k.replace("_", "-"): v for k, v in headers.items()})


class Guard:
    """Accepts requests with a secret."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        """Take the secrets, in ASCII; without one, every request is refused."""
        self._secrets = tuple(secret.encode() for secret in secrets)
        self._bad_tokens = FixedWindowRateLimiter(MemoryStorage())

    def __call__(
        self, request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
    ) -> None:
        """Refuse the request, or return.

        Raises:
            RefusedError: 500 if no secret is set, 401 for a wrong token or none, 429 after too many wrong ones.
        """
        if not self._secrets:
            raise RefusedError(500, "Configuration error")
        token = given.credentials.encode("utf-8", "replace") if given else b""
        # Each is compared in constant time, and all of them are compared.
        if any([hmac.compare_digest(token, secret) for secret in self._secrets]):
            return
        address = request.client.host if request.client else ""
        if self._bad_tokens.hit(RateLimitItemPerMinute(BAD_TOKENS_PER_MINUTE), address):
            raise RefusedError(401, "Unauthorized", WWW_Authenticate="Bearer")
        raise RefusedError(429, "Too many requests", Retry_After="60")


def create_app(runner: Runner, secrets: tuple[str, ...], scope: tuple[MeteredUsage, ...], *, version: str) -> FastAPI:
    """The application with the endpoint."""
    app = FastAPI(
        title="recon_pipeline",
        version=version,
        description="Keeps usage-billing counters equal to the event log.",
        redirect_slashes=False,  # to wherever the Host header says
        docs_url=None,
        redoc_url=None,  # both pages load scripts from elsewhere
    )
    app.middleware("http")(_refuse_bodies)
    _handle_errors(app)
    guard = Guard(secrets)

    async def reconcile_usage(
        wait: Annotated[bool, Query(description="False: respond at once with the id of the run.")] = True,
    ) -> Response:
        """Reconcile the months that a tick of the schedule would take, and return what was found and repaired."""
        started = runner.start()
        run_ids = await _result(started.run_ids)
        if not wait:
            accepted = Accepted(timestamp=datetime.now(UTC), runId=run_ids[0], runIds=list(run_ids))
            return JSONResponse(accepted.model_dump(mode="json"), 202)
        return await _answer(started, scope)

    for method in ("GET", "POST"):
        app.add_api_route(
            CRON_PATH,
            reconcile_usage,
            methods=[method],
            operation_id=f"reconcile_usage_{method.lower()}",
            dependencies=[Depends(guard)],
            response_model=Answer,
            responses=_refusals(),
            tags=["cron"],
        )
    return app


async def _answer(started: Started, scope: tuple[MeteredUsage, ...]) -> Response:
    ended = await _result(started.ended)
    if any(one.record.outcome == "put_off" for one in ended):
        raise RefusedError(503, "Service unavailable", Retry_After=str(UNREACHABLE_RETRY_SECONDS))
    if any(one.record.outcome == "failed" for one in ended):
        raise RefusedError(500, "Internal server error")
    answer = Answer.of(summarize(ended, dry_run=False), scope, at=datetime.now(UTC))
    return JSONResponse(answer.model_dump(mode="json"))


async def _result(future: "Future[_Found]") -> _Found:
    """The result of a run's thread; the run goes on if the caller disconnects."""
    try:
        return await asyncio.shield(asyncio.wrap_future(future))
    except BusyError:
        raise RefusedError(409, "A run is in progress", Retry_After=str(BUSY_RETRY_SECONDS)) from None
    except (DatabaseUnreachableError, OrchestratorUnreachableError, SchemaVersionError, PutOffError) as error:
        retry = str(UNREACHABLE_RETRY_SECONDS)
        raise RefusedError(503, "Service unavailable", Retry_After=retry) from error


async def _refuse_bodies(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
    """Refuse a body that is announced as large; never read others, and close the connection."""
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > BODY_BYTES:
        return JSONResponse({"error": "Content too large"}, 413)
    return await call(request)


def _handle_errors(app: FastAPI) -> None:
    """One shape for every error, and no details of its cause."""

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> Response:
        return error.answer

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def not_understood(_: Request, error: RequestValidationError) -> Response:
        where = ", ".join(sorted({str(one["loc"][-1]) for one in error.errors()}))
        return JSONResponse({"error": f"Not understood: {where}"}, 422)

    @app.exception_handler(Exception)
    async def internal(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": "Internal server error"}, 500)


def _refusals() -> dict[int | str, dict[str, Any]]:
    texts = {
        202: "With wait=false: the run has started.",
        401: "No token, or a wrong one.",
        409: "A run for this endpoint is in progress, in this process or another; see Retry-After.",
        413: "The request has a large body; it needs none.",
        422: "A parameter was not understood.",
        429: "Too many wrong tokens from this address.",
        500: "CRON_SECRET is not set, or the run failed.",
        503: "The billing database or Dagster's storage cannot be reached, schema recon is of another release, or "
        "another session has locked a table, for example a migration; see Retry-After.",
    }
    models = {202: Accepted}
    return {status: {"model": models.get(status, Problem), "description": text} for status, text in texts.items()}
