"""The responses of the cron endpoint, with the field names of the endpoint that it replaces."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, Field, field_serializer

from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.faces.reconciled import Summary


class _At(BaseModel):
    timestamp: datetime = Field(description="When this response was sent, in UTC.")

    @field_serializer("timestamp")
    def _as_javascript_would(self, value: datetime) -> str:
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Answer(_At):
    """The result of a run."""

    success: bool = Field(description="Every counter equals its event sum.")
    gatewayName: str = Field(description="What is reconciled; several are separated by commas.")
    usageType: str = Field(description="What is reconciled; several are separated by commas.")
    eventsScanned: int
    countersScanned: int
    rowsRepaired: int
    driftCount: int = Field(description="Drifted keys found.")
    dedupeCount: int = Field(description="Duplicate events not counted.")
    overQuotaTransitions: int
    reconcileFailures: int = Field(description="Keys that could not be repaired.")
    durationMs: int
    blocked: bool = Field(description="A guard blocked the repair; a person has to approve it. Nothing was written.")
    paused: bool = Field(description="Repairs are paused; counters were only compared.")
    runId: str = Field(description="The run in Dagster's history.")
    runIds: list[str] = Field(description="All runs: one for each contiguous range of months.")

    @classmethod
    def of(cls, run: Summary, scope: tuple[MeteredUsage, ...], *, at: datetime) -> "Answer":
        """The summary of the runs, in the names of the endpoint."""
        return cls(
            success=run.success,
            timestamp=at,
            gatewayName=",".join(dict.fromkeys(usage.gateway_name for usage in scope)),
            usageType=",".join(dict.fromkeys(usage.usage_type for usage in scope)),
            eventsScanned=run.events_scanned,
            countersScanned=run.counters_scanned,
            rowsRepaired=run.rows_repaired,
            driftCount=run.drift_count,
            dedupeCount=run.dedupe_count,
            overQuotaTransitions=run.over_quota_transitions,
            reconcileFailures=run.reconcile_failures,
            durationMs=run.duration_ms,
            blocked=run.blocked,
            paused=run.paused,
            runId=run.run_id,
            runIds=list(run.run_ids),
        )


class Accepted(_At):
    """The run has started; its page in Dagster's UI shows how it ended."""

    success: Literal[True] = True
    runId: str
    runIds: list[str]


class Problem(BaseModel):
    """Why the request failed."""

    error: str


class Health(BaseModel):
    """Whether everything works, and if not, what fails."""

    status: Literal["ok", "failing"]
    failing: list[str] = []
