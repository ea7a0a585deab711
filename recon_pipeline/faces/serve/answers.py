"""What the cron endpoint answers: the names of the endpoint that it takes the place of."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field, field_serializer

from recon_pipeline.core.scope import MeteredUsage


class _At(BaseModel):
    timestamp: datetime = Field(description="When this was answered, in UTC.")

    @field_serializer("timestamp")
    def _as_javascript_would(self, value: datetime) -> str:
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Answer(_At):
    """What a run found and did."""

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
    blocked: bool = Field(description="A guard refused the repair; a person has to approve it. Nothing was written.")
    paused: bool = Field(description="Repairs are paused; counters were compared and left alone.")
    runId: str = Field(description="The run in Dagster's history.")
    runIds: list[str] = Field(description="All runs: one for each contiguous range of months.")

    @classmethod
    def of(cls, run: Mapping[str, Any], scope: tuple[MeteredUsage, ...], *, at: datetime) -> "Answer":
        """From what `recon reconcile --json` shows."""
        return cls(
            success=run["success"],
            timestamp=at,
            gatewayName=",".join(dict.fromkeys(usage.gateway_name for usage in scope)),
            usageType=",".join(dict.fromkeys(usage.usage_type for usage in scope)),
            eventsScanned=run["events_scanned"],
            countersScanned=run["counters_scanned"],
            rowsRepaired=run["rows_repaired"],
            driftCount=run["drift_count"],
            dedupeCount=run["dedupe_count"],
            overQuotaTransitions=run["over_quota_transitions"],
            reconcileFailures=run["reconcile_failures"],
            durationMs=run["duration_ms"],
            blocked=run["blocked"],
            paused=run["paused"],
            runId=run["run_id"],
            runIds=run["run_ids"],
        )


class Accepted(_At):
    """The run has begun; its page in Dagster's UI tells how it ended."""

    success: Literal[True] = True
    runId: str
    runIds: list[str]


class Problem(BaseModel):
    """Why there is no other answer."""

    error: str


class Health(BaseModel):
    """Whether all is well, and if not, what is not."""

    status: Literal["ok", "failing"]
    failing: list[str] = []
