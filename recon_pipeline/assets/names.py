"""The names of an installation's assets, jobs, schedules, sensors, resources and lanes in Dagster.

Invariant: two installations with different names (`RECON_NAME`) share no name, so neither hides the other in one
Dagster instance. Without `RECON_NAME` the names are those of the docs.
"""

from dataclasses import dataclass

import dagster as dg

PIPELINE = ("usage_events", "usage_aggregates", "counter_drift", "repaired_counters")
"""The assets of a run, in flow order."""

_ASSETS = ("backfilled_events", "lake_event_sums", *PIPELINE, "sealed_counters", "archived_events", "stripe_parity")
_JOBS = (
    "reconcile",
    "backfill_usage_events",
    "undo_repairs",
    "count_lake",
    "seal_months",
    "archive_months",
    "compare_with_stripe",
    "housekeeping",
)


@dataclass(frozen=True)
class Names:
    """The names of one installation.

    Attributes:
        name: Its own name, `RECON_NAME`; '' for none.
    """

    name: str = ""

    def of(self, plain: str) -> str:
        """A job, schedule, sensor, op, resource or group: `eu_reconcile`."""
        return f"{self.name}_{plain}" if self.name else plain

    def key(self, asset: str) -> dg.AssetKey:
        """An asset: `eu/usage_events`."""
        return dg.AssetKey([self.name, asset] if self.name else [asset])

    def lane(self, lane: str) -> str:
        """The value of the tag `recon/lane`: `eu/tick`."""
        return f"{self.name}/{lane}" if self.name else lane

    @property
    def pipeline(self) -> tuple[dg.AssetKey, ...]:
        """The assets of a run, in flow order."""
        return tuple(map(self.key, PIPELINE))

    @property
    def assets(self) -> frozenset[dg.AssetKey]:
        """Every asset that a run of ours can materialize."""
        return frozenset(map(self.key, _ASSETS))

    @property
    def jobs(self) -> frozenset[str]:
        """Every job of ours."""
        return frozenset(map(self.of, _JOBS))

    @property
    def group(self) -> str:
        """The group of the assets."""
        return self.of("billing_usage")

    @property
    def reconciler(self) -> str:
        """The key of the resource with what a person sets for one run."""
        return self.of("reconciler")

    @property
    def database(self) -> str:
        """The key of the resource with the billing database."""
        return self.of("reconciled_database")

    @property
    def lake_engine(self) -> str:
        """The key of the resource with the engine that counts the lake."""
        return self.of("lake_engine")
