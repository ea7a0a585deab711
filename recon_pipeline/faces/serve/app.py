"""The cron endpoint, a drop-in replacement for that of an application.

Invariant: only the token and `wait` of a request are used, and its body is never read. A response contains no details
of errors: they go to the log.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from recon_pipeline.core.errors import (
    DatabaseUnreachableError,
    OrchestratorUnreachableError,
    PutOffError,
    SchemaVersionError,
)
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.faces.reconciled import summarize
from recon_pipeline.faces.serve.answers import Accepted, Answer, Problem
from recon_pipeline.faces.serve.guard import Guard, RefusedError
from recon_pipeline.faces.serve.pages import is_page, problem_page
from recon_pipeline.faces.serve.runner import BusyError, Runner, Started

CRON_PATH = "/api/cron/billing/reconcile-usage"
BUSY_RETRY_SECONDS = 15
UNREACHABLE_RETRY_SECONDS = 30
BODY_BYTES = 16_384

_Found = TypeVar("_Found")


def create_app(runner: Runner, guard: Guard, scope: tuple[MeteredUsage, ...], *, version: str) -> FastAPI:
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
    app.add_middleware(HeadAsGet)
    _handle_errors(app)

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
            dependencies=[Depends(guard.to_change)],
            response_model=Answer,
            responses=_refusals(),
            tags=["cron"],
        )
    return app


class HeadAsGet:
    """Answers HEAD as GET, whose body uvicorn leaves away, for every path; but a GET that starts a run has no HEAD."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] == "http" and scope["method"] == "HEAD" and scope["path"] != CRON_PATH:
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)


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
    """One shape for every error, for programs or for people, and no details of its cause."""

    def answer(request: Request, status: int, error: str, headers: Mapping[str, str] | None = None) -> Response:
        if is_page(request.url.path):
            return problem_page(status, error, headers)
        return JSONResponse({"error": error}, status, headers)

    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> Response:
        return answer(request, error.status, error.error, error.headers)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return answer(request, error.status_code, error.detail, error.headers)

    @app.exception_handler(RequestValidationError)
    async def not_understood(request: Request, error: RequestValidationError) -> Response:
        where = ", ".join(sorted({str(one["loc"][-1]) for one in error.errors()}))
        return answer(request, 422, f"Not understood: {where}")

    @app.exception_handler(Exception)
    async def internal(request: Request, error: Exception) -> Response:
        return answer(request, 500, "Internal server error")


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
