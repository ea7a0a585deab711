"""Runs for the cron endpoint: one at a time over all processes, each in Dagster's history.

Invariant: a run is in progress while its process has a lock, which ends with the process. A process that gets the lock
knows that no other run of this lane is alive, and reports unfinished ones as failed: a killed server blocks no caller.
"""

import json
import logging
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from uuid import uuid4

import dagster as dg

from recon_pipeline.assets.names import Names
from recon_pipeline.automation.installation import LANE_TAG
from recon_pipeline.automation.own_runs import own_tag
from recon_pipeline.automation.unfinished import UNFINISHED
from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.periods import contiguous_ranges
from recon_pipeline.faces.dagster_home import require_storage
from recon_pipeline.faces.orchestrator import open_instance
from recon_pipeline.faces.reconcile import months_of_a_tick
from recon_pipeline.faces.reconcile_job import Request, reconcile
from recon_pipeline.faces.reconciled import Reconciled, as_json, summarize
from recon_pipeline.settings import Settings, read_name
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.records.serve_lock import serve_lock

LANE = "cron"
_log = logging.getLogger(__name__)


class BusyError(Exception):
    """A run for the endpoint has not ended."""


@dataclass(frozen=True)
class Started:
    """A started run; there is one for each contiguous range of months.

    Attributes:
        run_ids: Set when the run may start; fails with BusyError or ReconError if it may not.
        ended: How the runs ended, or the error that stopped them.
    """

    run_ids: "Future[tuple[str, ...]]" = field(default_factory=Future)
    ended: "Future[tuple[Reconciled, ...]]" = field(default_factory=Future)


class Runner:
    """Starts runs on their own threads: a caller that disconnects does not end a run."""

    def __init__(self, settings: Settings, database: BillingDatabase) -> None:
        """Take the settings of every run."""
        self._settings = settings
        self._database = database
        self._threads: list[threading.Thread] = []

    def start(self) -> Started:
        """Start a run over the months that a tick would take."""
        started = Started()
        thread = threading.Thread(target=self._run, args=(started,), name="recon-run", daemon=True)
        self._threads = [one for one in self._threads if one.is_alive()] + [thread]
        thread.start()
        return started

    def wait(self, *, seconds: float) -> None:
        """Wait for runs in progress, at most for that time."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self, started: Started) -> None:
        try:
            started.ended.set_result(self._reconcile(started))
        except BaseException as error:  # noqa: BLE001 - passed to the caller that waits, and logged
            if not isinstance(error, BusyError):
                _log.error("A run for the cron endpoint failed: %s", error, exc_info=not isinstance(error, ReconError))
            if not started.run_ids.done():
                started.run_ids.set_exception(error)
            started.ended.set_exception(error)

    def _reconcile(self, started: Started) -> tuple[Reconciled, ...]:
        with serve_lock(self._database) as is_ours:
            if not is_ours:
                raise BusyError
            require_storage()
            ranges = contiguous_ranges(months_of_a_tick(self._settings))
            with open_instance() as instance:
                _report_dead_runs(instance, self._database)
                run_ids = tuple(str(uuid4()) for _ in ranges)
                started.run_ids.set_result(run_ids)
                ended = tuple(
                    reconcile(self._settings, instance, Request(first, last, run_id=run_id, lane=LANE))
                    for (first, last), run_id in zip(ranges, run_ids, strict=True)
                )
        _log.info("%s", json.dumps({"event": "cron_request", **as_json(summarize(ended, dry_run=False))}))
        return ended


def _report_dead_runs(instance: dg.DagsterInstance, database: BillingDatabase) -> None:
    with database.transaction() as connection:
        tags = {**own_tag(connection), LANE_TAG: Names(read_name()).lane(LANE)}
    for run in instance.get_runs(dg.RunsFilter(tags=tags, statuses=UNFINISHED)):
        instance.report_run_failed(run, "The server that ran it (recon serve) ended before the run did.")
