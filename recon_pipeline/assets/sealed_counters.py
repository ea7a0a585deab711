"""A closed month's counters, sealed: materialized once, by a person or when RECON_SEAL_AFTER_DAYS are over."""

from collections.abc import Iterator

import dagster as dg

from recon_pipeline.assets.handover import failure
from recon_pipeline.assets.months import BILLING_MONTHS
from recon_pipeline.assets.names import Names
from recon_pipeline.assets.reconciled_database import ReconciledDatabase
from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.store.counters.sealing import NotSealedError
from recon_pipeline.store.records.closing import close_month

BY_ITSELF_TAG = "recon/seals_by_itself"
"""On runs of the schedule: a month that cannot be sealed yet is no failure of theirs, but is said."""


def sealed_counters(names: Names) -> dg.AssetsDefinition:
    """The asset, of the installation of that name."""

    @dg.asset(
        key=names.key("sealed_counters"),
        deps=[names.key("repaired_counters")],
        partitions_def=BILLING_MONTHS,
        backfill_policy=dg.BackfillPolicy.multi_run(1),  # each month is sealed, or refused, by itself
        group_name=names.group,
        required_resource_keys={names.database},
        owners=["team:billing"],
        kinds={"postgres"},
        output_required=False,
        description="The final sums of a closed month, which its counters follow from then on, whatever happens to the "
        "log. Stored in `recon.month_seal` and `recon.sealed_counter`.",
    )
    def sealed(context: dg.AssetExecutionContext) -> Iterator[dg.Output[None]]:
        yield from _sealed(context, getattr(context.resources, names.database))

    return sealed


def _sealed(context: dg.AssetExecutionContext, database: ReconciledDatabase) -> Iterator[dg.Output[None]]:
    month = BillingMonth.parse(context.partition_key)
    by_itself = context.run.tags.get(BY_ITSELF_TAG) == "true"
    sealed_by = "RECON_SEAL_AFTER_DAYS" if by_itself else context.run.tags.get("user", "unknown")
    try:
        with database.open().connection() as connection:
            done = close_month(connection, database.settings(), month, sealed_by=sealed_by, run_id=context.run.run_id)
    except NotSealedError as refused:
        if not by_itself:
            raise failure(refused) from refused
        observed = dg.AssetObservation(context.asset_key, description=str(refused), partition=context.partition_key)
        context.log_event(observed)
        return
    except ReconError as error:
        raise failure(error) from error
    seals = [one.record.seal for one in done]
    yield dg.Output(
        None,
        metadata={
            "keys": sum(seal.key_count for seal in seals),
            "events": sum(seal.event_count for seal in seals),
            "units": str(sum(int(seal.usage_count) for seal in seals)),
            "checksums": ", ".join(f"{one.record.usage} {one.record.seal.checksum}" for one in done),
            "keys_changed_since_the_seal_before": sum(one.keys_changed for one in done),
        },
    )
