"""One installation of this product in a Dagster: its names, its database, and the tags of its runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from recon_pipeline.assets.lake_engine import LakeEngine
from recon_pipeline.assets.names import Names
from recon_pipeline.assets.reconciled_database import ReconciledDatabase
from recon_pipeline.assets.reconciler import Reconciler

LANE_TAG = "recon/lane"
"""Runs of one lane never overlap (`dagster.yaml`): ticks among themselves, audits among themselves."""


@dataclass(frozen=True)
class Installation:
    """What schedules, sensors and jobs need to know.

    Attributes:
        names: Of everything that it has in Dagster.
        database: The billing database with what is reconciled in it.
        engine: What counts its lake.
        run_tags: Of each of its runs, for example for Kubernetes.
    """

    names: Names
    database: ReconciledDatabase = field(default_factory=ReconciledDatabase)
    engine: LakeEngine = field(default_factory=LakeEngine)
    run_tags: Mapping[str, Any] = field(default_factory=dict)

    @property
    def resources(self) -> dict[str, dg.ConfigurableResource[Any]]:
        """The resources of its runs, by key."""
        return {
            self.names.reconciler: Reconciler(),
            self.names.database: self.database,
            self.names.lake_engine: self.engine,
        }

    def lane(self, lane: str) -> dict[str, str]:
        """The tag of runs of a lane; lanes of different installations have different values."""
        return {LANE_TAG: self.names.lane(lane)}
