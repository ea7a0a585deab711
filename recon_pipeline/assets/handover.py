"""What a step hands over through Dagster's event log: its error, and the plan of a dry run.

Invariant: both sides have the same types, in whichever process the step ran. Dagster keeps JSON, which is written and
read here and nowhere else.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import TypeAdapter

from recon_pipeline.core.errors import ReconError
from recon_pipeline.store.backfill.dry_run import Plan

_ERROR, _PLAN = "error", "plan"
_plans = TypeAdapter(Plan)

Metadata = Mapping[str, dg.MetadataValue[Any]]


def failure(error: ReconError) -> dg.Failure:
    """The failure of a step, to be raised from the error; a retry would not help."""
    parts = {"what": error.what, "changed": error.changed, "fix": error.fix}
    return dg.Failure(str(error), metadata={_ERROR: dg.MetadataValue.json(parts)}, allow_retries=False)


def read_error(metadata: Metadata) -> ReconError | None:
    """The error in the metadata of a step's failure, or None if the step failed otherwise.

    A plain `ReconError`, whatever it was: for a command, all failed runs are alike.
    """
    kept = metadata.get(_ERROR)
    if not isinstance(kept, dg.JsonMetadataValue) or not isinstance(kept.value, dict):
        return None
    return ReconError(kept.value["what"], changed=kept.value["changed"], fix=kept.value["fix"])


def plan_metadata(plan: Plan) -> dict[str, dg.JsonMetadataValue]:
    """The plan as metadata of an observation."""
    return {_PLAN: dg.MetadataValue.json(_plans.dump_python(plan, mode="json"))}


def read_plan(metadata: Metadata) -> Plan | None:
    """The plan in the metadata of an observation, or None if there is none."""
    kept = metadata.get(_PLAN)
    return _plans.validate_python(kept.value) if isinstance(kept, dg.JsonMetadataValue) else None
