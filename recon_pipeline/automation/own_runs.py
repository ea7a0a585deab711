"""Which runs of a Dagster instance are ours: others may use it too, perhaps with jobs of the same names.

Invariant: a run that Dagster launched is ours if it is in our code location and of one of our jobs, or a
materialization of only our assets in the UI, by the names of this installation. A run that `recon` started in its own
process has no code location, but a tag with the billing database. All other runs are not ours: they are neither read
nor deleted.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import merge

import dagster as dg
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME
from dagster._core.remote_origin import RemoteRepositoryOrigin
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG
from sqlalchemy import Connection

from recon_pipeline.assets.names import Names
from recon_pipeline.store.postgres.database import database_id

DATABASE_TAG = "recon/database"
MATERIALIZED_IN_THE_UI = IMPLICIT_ASSET_JOB_NAME
RECORDS_AT_ONCE = 500

_ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


def own_tag(connection: Connection) -> dict[str, str]:
    """The tag of runs on the billing database of the connection, to start or to find one."""
    return {DATABASE_TAG: database_id(connection)}


@dataclass(frozen=True)
class OwnRuns:
    """How our runs are distinguished from those of others.

    Attributes:
        names: Of our jobs and assets.
        in_process: The tag of runs that `recon` started in its own process: `own_tag`.
        repository: Ours, in our code location, or None if there is none.
    """

    names: Names
    in_process: Mapping[str, str]
    repository: RemoteRepositoryOrigin | None

    @classmethod
    def of_sensor(cls, context: dg.SensorEvaluationContext, names: Names, connection: Connection) -> "OwnRuns":
        """Those of the sensor's code location and database."""
        location, name = context.code_location_origin, context.repository_name
        repository = RemoteRepositoryOrigin(location, name) if location and name else None
        return cls(names, own_tag(connection), repository)

    @classmethod
    def of_run(cls, run: dg.DagsterRun, names: Names, connection: Connection) -> "OwnRuns":
        """Those of the run's code location and database."""
        origin = run.remote_job_origin
        return cls(names, own_tag(connection), origin.repository_origin if origin else None)

    def ended(
        self, instance: dg.DagsterInstance, *, after: datetime | None = None, created_before: datetime | None = None
    ) -> Iterator[dg.RunRecord]:
        """Our runs that ended between those times (UTC), in the order of their ends; each may be deleted at once."""
        sources = [self._ended(instance, self.in_process, after, created_before, is_launched=False)]
        if self.repository is not None:
            launched = {REPOSITORY_LABEL_TAG: self.repository.get_label()}
            sources.append(self._ended(instance, launched, after, created_before, is_launched=True))
        return merge(*sources, key=lambda record: record.update_timestamp)

    def _ended(
        self,
        instance: dg.DagsterInstance,
        tags: Mapping[str, str],
        after: datetime | None,
        created_before: datetime | None,
        *,
        is_launched: bool,
    ) -> Iterator[dg.RunRecord]:
        seen: set[int] = set()
        limit = RECORDS_AT_ONCE
        while True:
            page = instance.get_run_records(
                dg.RunsFilter(tags=tags, statuses=_ENDED, updated_after=after, created_before=created_before),
                limit=limit,
                order_by="update_timestamp",
                ascending=True,
            )
            for record in page:
                run = record.dagster_run
                # A launched run may have our tag too: its code location decides.
                if (
                    (run.remote_job_origin is not None) == is_launched
                    and record.storage_id not in seen
                    and self._is_of_ours(run)
                ):
                    yield record
            if len(page) < limit:
                return
            # The next page begins with the last instant of this one, because several runs may have ended then.
            seen = {record.storage_id for record in page}
            after = page[-1].update_timestamp - timedelta(microseconds=1)
            if page[0].update_timestamp == page[-1].update_timestamp:
                limit *= 2

    def _is_of_ours(self, run: dg.DagsterRun) -> bool:
        """Whether the run is of our jobs or assets, which may share a code location with others."""
        if run.job_name != MATERIALIZED_IN_THE_UI:
            return run.job_name in self.names.jobs
        selected = {key.asset_key if isinstance(key, dg.AssetCheckKey) else key for key in run.entity_selection or ()}
        return bool(selected) and selected <= self.names.assets
