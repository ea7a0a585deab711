"""The job that undoes the repairs of a run: from the launchpad or through `recon undo`."""

from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from recon_pipeline.assets.handover import failure
from recon_pipeline.assets.names import Names
from recon_pipeline.assets.reconciled_database import ReconciledDatabase
from recon_pipeline.automation.installation import Installation
from recon_pipeline.core.errors import ConfigurationError, ReconError
from recon_pipeline.store.counters import undo
from recon_pipeline.store.counters.undo import UndoRecord
from recon_pipeline.store.counters.undo_request import UndoRequest, find_run
from recon_pipeline.store.postgres.database import begin


class UndoConfig(dg.Config):
    """Which repairs a person wants to undo."""

    run: str = Field(description="The run whose repairs are undone: its id, or its first characters.")
    reason: str = Field(description="Why; recorded.")
    customers: list[str] = Field(
        default=[], description="Only the repairs of these customers, by gateway_customer_id. Empty for all."
    )
    requested_by: str = Field(default="", description="Who. Empty: the run's tag `user`, or `unknown`.")


def undo_repairs(ours: Installation) -> dg.JobDefinition:
    """The job of that installation: one step."""
    names = ours.names

    @dg.op(name=names.of("take_repairs_back"), required_resource_keys={names.database})
    def take_repairs_back(
        context: dg.OpExecutionContext, config: UndoConfig
    ) -> Iterator[dg.AssetObservation | dg.Output[None]]:
        yield from _taken_back(context, config, getattr(context.resources, names.database), names)

    @dg.job(
        name=names.of("undo_repairs"),
        executor_def=dg.in_process_executor,
        tags={**ours.run_tags, **ours.lane("undo")},
        description="Undo the repairs of a run, by the inverse of each change; increments since then stay.",
    )
    def taken_back() -> None:
        take_repairs_back()

    return taken_back


def _taken_back(
    context: dg.OpExecutionContext, config: UndoConfig, database: ReconciledDatabase, names: Names
) -> Iterator[dg.AssetObservation | dg.Output[None]]:
    """Undo, and report it on the asset of the counters; a repair that could not be undone fails the run."""
    try:
        if not config.reason.strip():
            raise ConfigurationError("reason is empty.", fix="Say why the repairs are undone.")
        with database.open().connection() as connection:
            with begin(connection):
                undone_run_id = find_run(connection, config.run)
            request = UndoRequest(
                run_id=context.run_id,
                undone_run_id=undone_run_id,
                customers=tuple(config.customers),
                reason=config.reason,
                requested_by=config.requested_by or context.run.tags.get("user", "unknown"),
            )
            record = undo.undo_repairs(connection, request)
    except ReconError as error:
        raise failure(error) from error
    yield dg.AssetObservation(
        names.key("repaired_counters"),
        description=f"Repairs of run {undone_run_id} were undone by {request.requested_by}: {request.reason}",
        metadata={"undone": record.undone or 0, "not_undone": record.left, "undone_run": undone_run_id},
    )
    if record.left:
        raise failure(not_all_undone(record))
    yield dg.Output(None)


def not_all_undone(record: UndoRecord) -> ReconError:
    """The error if some repairs could not be undone."""
    reasons = (
        (record.below_zero, "would have made a counter negative"),
        (record.without_counter, "have no counter any more"),
        (record.sealed, "belong to a sealed month (recon reopen)"),
        (record.deferred, "belong to a counter that another session has locked"),
        (record.failed, "were refused by Postgres"),
    )
    causes = ", ".join(f"{count:,} {why}" for count, why in reasons if count)
    return ReconError(
        f"{record.left:,} repairs were not undone: {causes}.",
        changed=f"{record.undone or 0:,} repairs were undone, each with a row in recon.counter_repair.",
        fix="Look at the sample (recon.undo, not_undone). Run it again: it undoes what is left, and nothing twice.",
    )
