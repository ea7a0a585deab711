"""The pages for people: the current state, at `/`, and a customer's counters, at `/customers/ID`.

Invariant: a page changes nothing, and shows nothing without a secret. An error is a page, too.
"""

from collections.abc import Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse

from recon_pipeline.core.errors import (
    DatabaseRefusedError,
    DatabaseUnreachableError,
    PutOffError,
    ReconError,
    SchemaVersionError,
    StatementFailedError,
    UntrustworthyLogError,
)
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.charts import drift_chart
from recon_pipeline.faces.explain import explain_in
from recon_pipeline.faces.explain_report import report
from recon_pipeline.faces.html import policy, render
from recon_pipeline.faces.serve import overview
from recon_pipeline.faces.serve.archive_reader import ArchiveReader
from recon_pipeline.faces.serve.guard import Guard
from recon_pipeline.faces.status import status_of
from recon_pipeline.settings import Settings
from recon_pipeline.store.postgres.clock import now
from recon_pipeline.store.postgres.database import BillingDatabase, begin
from recon_pipeline.store.records import alerts, runs
from recon_pipeline.store.records.drift_history import BUCKET, bucket_start, drift_history

STATUS_SECONDS = 5
EXPLAIN_SECONDS = 20
CHART = timedelta(days=7)
HOLDS_SHOWN = 20
HOLDS_LISTED = 1_000

_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_PROBLEMS = {
    401: (
        "This page needs a secret",
        "Reload it and log in: any name, and as password RECON_READ_SECRET or CRON_SECRET of this server.",
    ),
    404: ("There is no such page", "Go to the overview."),
    405: ("A page can only be read", "Nothing was changed. Use the commands `recon …`."),
    413: ("The request is too large", "Open the page again from its address."),
    422: ("The address of this page was not understood", "A period is a billing month, YYYY-MM."),
    429: ("Too many wrong passwords from your address", "Wait a minute, then log in again. Nobody else is kept out."),
    500: ("Something went wrong in this server", "Nothing was changed. The log of recon serve has the cause."),
}
_ERRORS: tuple[tuple[type[ReconError], int, str], ...] = (
    (DatabaseRefusedError, 503, "The billing database does not let recon serve in"),
    (DatabaseUnreachableError, 503, "The billing database is down"),
    (PutOffError, 503, "Another session has locked a table"),
    (SchemaVersionError, 503, "The billing database is of another release"),
    (UntrustworthyLogError, 503, "The billing database cannot be used"),
    (StatementFailedError, 503, "The billing database cannot be used"),
    (ReconError, 404, "This was not found"),
)
_NO_SECRET = (
    "No secret is set, so nobody can log in",
    'Set RECON_READ_SECRET="$(openssl rand -hex 32)" where recon serve runs, and start it again.',
)


def is_page(path: str) -> bool:
    """Whether people look at that path with a browser."""
    return path in ("/", "/customers") or path.startswith("/customers/")


def problem_page(status: int, error: str, headers: Mapping[str, str] | None = None) -> Response:
    """The page for a request that was refused."""
    title, fix = _NO_SECRET if error == "Configuration error" else _PROBLEMS.get(status, _PROBLEMS[500])
    return _problem(status, title, fix, headers=headers)


def add_pages(app: FastAPI, database: BillingDatabase, settings: Settings, guard: Guard, *, ui_url: str) -> None:
    """Add them to the application; `ui_url` is where Dagster's UI is, or ''."""
    router, reader = APIRouter(dependencies=[Depends(guard.to_read)], include_in_schema=False), ArchiveReader(settings)

    @router.get("/")
    def home() -> Response:
        with database.connection() as connection, begin(connection, statement_timeout_ms=STATUS_SECONDS * 1_000):
            status = status_of(connection, database.name, settings)
            last_success, first_run = alerts.last_success(connection), runs.first_started_at(connection)
            at = now(connection)
            until = bucket_start(at) + BUCKET
            history = drift_history(connection, since=until - CHART)
        found = overview.notices(status, last_success=last_success, first_run=first_run, now=at)
        return _page(
            render(
                "serve/overview.html.jinja",
                served=True,
                status=status,
                verdict=overview.verdict(status, found, now=at),
                notices=found,
                chart=drift_chart(history, since=until - CHART, until=until) if status.runs else None,
                at=at,
                ago=lambda moment: overview.ago(moment, at),
                months=overview.months_of_run,
                tones=overview.TONES,
                ui_url=ui_url,
                scope=settings.scope,
                holds_shown=HOLDS_SHOWN,
                holds_listed=HOLDS_LISTED,
            )
        )

    def explained(customer: str, period: str | None) -> Response:
        if not customer or "\0" in customer:
            return problem_page(404, "Not Found")
        month = BillingMonth.parse(period) if period else None
        limit = EXPLAIN_SECONDS * 1_000
        found = explain_in(database, settings, customer, month, statement_timeout_ms=limit, reads_archives=False)
        return _page(report(reader.beside_archives(found, month), served=True))

    @router.get("/customers")
    def named(identifier: Annotated[str, Query(alias="id")] = "", period: str | None = None) -> Response:
        return explained(identifier.strip(), period)

    @router.get("/customers/{customer:path}")
    def customer(customer: str, period: str | None = None) -> Response:
        return explained(customer, period)

    app.include_router(router)

    @app.exception_handler(ReconError)
    async def failed(_: Request, error: ReconError) -> Response:
        status, title = next((status, title) for kind, status, title in _ERRORS if isinstance(error, kind))
        return _problem(status, title, error.fix, what=error.what)


def _problem(
    status: int, title: str, fix: str, *, what: str = "", headers: Mapping[str, str] | None = None
) -> Response:
    passes = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    html = render("serve/problem.html.jinja", served=True, title=title, what=what, fix=fix, reloads=passes)
    return _page(html, status, headers)


def _page(html: str, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> Response:
    return HTMLResponse(html, status, {**_HEADERS, "Content-Security-Policy": policy(), **(headers or {})})
