"""What the assets of one installation have in common: their months, their group, and the resources of their steps."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypedDict

import dagster as dg

from recon_pipeline.assets.months import BILLING_MONTHS
from recon_pipeline.assets.names import Names
from recon_pipeline.assets.reconciled_database import ReconciledDatabase
from recon_pipeline.assets.reconciler import Reconciler, Step, StepContext


@contextmanager
def step_of(context: StepContext, names: Names) -> Iterator[Step]:
    """One step of a run of the installation of that name, with what a person set for the run.

    Raises:
        dg.Failure: As `Reconciler.step` does.
    """
    reconciler: Reconciler = getattr(context.resources, names.reconciler)
    database: ReconciledDatabase = getattr(context.resources, names.database)
    with reconciler.step(context, database, names) as step:
        yield step


class AssetOptions(TypedDict):
    """What all assets of a run have in common."""

    partitions_def: dg.TimeWindowPartitionsDefinition
    backfill_policy: dg.BackfillPolicy
    group_name: str
    required_resource_keys: set[str]


def asset_options(names: Names) -> AssetOptions:
    """What all assets of a run of that installation have in common."""
    return {
        "partitions_def": BILLING_MONTHS,
        "backfill_policy": dg.BackfillPolicy.single_run(),
        "group_name": names.group,
        "required_resource_keys": {names.reconciler, names.database},
    }
