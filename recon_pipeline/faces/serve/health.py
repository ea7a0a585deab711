"""Whether this process is alive, is ready, and whether counters are being reconciled; and the metrics.

There are three paths for three kinds of callers: a supervisor that restarts a dead process, a load balancer, and
monitoring that wakes a person. A server must stay in service while runs are overdue: it may be what starts them.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from sqlalchemy import Connection

from recon_pipeline.core.alerts import DEAD_MANS_SWITCH_MINUTES
from recon_pipeline.core.errors import ReconError, SchemaVersionError
from recon_pipeline.faces.dagster_home import require_storage
from recon_pipeline.faces.serve.answers import Health, Problem
from recon_pipeline.faces.serve.metrics import ReconCollector
from recon_pipeline.store.counters.pause import read_pause
from recon_pipeline.store.postgres.database import BillingDatabase, begin
from recon_pipeline.store.records import alerts, metrics

STATEMENT_SECONDS = 5
METRICS_SECONDS = 5.0
"""Figures are at most this old, however often they are requested."""


class RecentFigures:
    """The figures, or why they cannot be read; read again when they are older than `METRICS_SECONDS`."""

    def __init__(self, database: BillingDatabase, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the database, and a clock in seconds."""
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._asked_at = -math.inf
        self._answer: metrics.Metrics | ReconError

    def __call__(self) -> metrics.Metrics:
        """The figures.

        Raises:
            ReconError: They cannot be read.
        """
        with self._lock:
            if self._clock() - self._asked_at > METRICS_SECONDS:
                self._answer = self._ask()
                self._asked_at = self._clock()
            if isinstance(self._answer, ReconError):
                raise self._answer
            return self._answer

    def _ask(self) -> metrics.Metrics | ReconError:
        try:
            with _brief(self._database) as connection:
                return metrics.read(connection)
        except ReconError as error:
            return error


@contextmanager
def _brief(database: BillingDatabase) -> Iterator[Connection]:
    """A transaction with a short statement timeout, so that it ends before the caller stops waiting."""
    with database.connection() as connection, begin(connection, statement_timeout_ms=STATEMENT_SECONDS * 1_000):
        yield connection


def health_routes(database: BillingDatabase) -> APIRouter:
    """`/healthz`, `/healthz/ready`, `/healthz/reconciled` and `/metrics`."""
    router = APIRouter(tags=["health"])
    registry = CollectorRegistry()
    registry.register(ReconCollector(RecentFigures(database)))
    failing: dict[int | str, dict[str, Any]] = {503: {"model": Health, "description": "Something fails; see failing."}}

    @router.get("/healthz", response_model=Health)
    async def alive() -> Health:
        """This process answers, even while other requests wait for a database."""
        return Health(status="ok")

    @router.get("/healthz/ready", response_model=Health, responses=failing)
    def ready() -> Response:
        """The billing database and Dagster's storage can be reached, and schema recon has the required version."""
        return _response(_unready(database))

    @router.get("/healthz/reconciled", response_model=Health, responses=failing)
    def reconciled() -> Response:
        """A run verified the current month recently, or repairs are paused. Check it from another machine."""
        return _response(_overdue(database))

    @router.get(
        "/metrics",
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "For Prometheus."},
            503: {"model": Problem, "description": "The figures cannot be read."},
        },
    )
    def metrics(request: Request) -> Response:
        """The metrics, in the format that the Accept header asks for."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        try:
            return Response(encode(registry), media_type=content_type)
        except ReconError:
            return JSONResponse({"error": "Service unavailable"}, 503)

    return router


def _response(failing: list[str]) -> Response:
    health = Health(status="failing" if failing else "ok", failing=failing)
    return JSONResponse(health.model_dump(), 503 if failing else 200)


def _unready(database: BillingDatabase) -> list[str]:
    failing: list[str] = []
    try:
        with _brief(database):
            pass
    except ReconError as error:
        failing.append(_unusable(error))
    try:
        require_storage()
    except ReconError:
        failing.append("Dagster's storage cannot be used")
    return failing


def _overdue(database: BillingDatabase) -> list[str]:
    try:
        with _brief(database) as connection:
            if read_pause(connection) is not None:
                return []
            last = alerts.last_success(connection)
    except ReconError as error:
        return [_unusable(error)]
    if last is not None and datetime.now(UTC) - last <= timedelta(minutes=DEAD_MANS_SWITCH_MINUTES):
        return []
    return [f"no run has succeeded {f'for {DEAD_MANS_SWITCH_MINUTES} minutes' if last else 'yet'}"]


def _unusable(error: ReconError) -> str:
    """Why the billing database cannot be used, without details that are not public."""
    if not isinstance(error, SchemaVersionError):
        return "the billing database cannot be used"
    fix = "a newer release: upgrade this one" if error.is_newer else "an older release, or none: recon init"
    return f"schema recon was prepared by {fix}"
