"""The check that the log still has the events that were sealed: what came after is reported, and changes no counter.

Stored sums show that for a month in the log. Of an archived month, whose events may leave the log and come again, its
archive is read, event by event: by an audit, and where stored sums say that something came. What was found stays true
until sums of the month are written again, and is remembered until then: an idle tick asks nothing.
"""

from collections.abc import Sequence
from dataclasses import replace

import dagster as dg

from recon_pipeline.assets.reconciler import Step
from recon_pipeline.assets.tables import sample
from recon_pipeline.core.errors import ReconError, UntrustworthyLogError
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.counters import remembered_since_seals, since_seals, verify_seals
from recon_pipeline.store.counters.remembered_since_seals import Remembered
from recon_pipeline.store.counters.seal_records import read_seals
from recon_pipeline.store.counters.since_seals import KeySinceSeal, MonthSinceSeal
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.records import runs
from recon_pipeline.store.sums.run import SAMPLE_ROWS

_NAME = "sealed_months_hold"


def spec(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """What Dagster knows of the check before it is evaluated."""
    return dg.AssetCheckSpec(
        _NAME,
        asset=asset,
        description="The log has as many events of sealed months as were sealed, with the same sums, and in audits "
        "archives are what was sealed. Events that came late, changed or left the log since change no counter: recon "
        "corrections lists them.",
    )


def sealed_months_hold(step: Step, tables: BillingTables) -> dg.AssetCheckResult:
    """How many keys, events and units differ from the seals of the run's months, by month.

    Raises:
        UntrustworthyLogError: A run that reads everything found a seal that is not what was written, before anything is
            repaired to it.
    """
    sealed = [one for usage in step.run.extent.scope for one in tables.sealed_within(usage, step.run.extent)]
    with step.database.transaction() as connection:
        if sealed and runs.reads_all(connection, step.run.run_id):
            summed = {one.seal_id for one in sealed}
            misfit = verify_seals.misfit_of_records(connection, read_seals(connection), summed=summed)
            if misfit is not None:
                raise UntrustworthyLogError(misfit, fix=verify_seals.CHANGED)
        recalled = remembered_since_seals.recall(connection, tables, step.run.extent)
    found, wrong = _came(step, tables, recalled)
    keys = sum(month.keys for month in found)
    months = "; ".join(
        f"{month.partition} of {month.usage}: {month.keys:,} keys, by {month.events:,} events and {month.units} units"
        for month in found
    )
    in_lake = {(one.usage, one.month.key) for one in sealed if one.is_of_lake}
    where = sorted({"lake" if (month.usage, month.partition) in in_lake else "log" for month in found}, reverse=True)
    options = " ".join(f"--period {month}" for month in sorted({month.partition for month in found}))
    came = (
        f"The {' or the '.join(where)} is not what was sealed: {months}. No counter was changed for it. "
        f"recon corrections {options} lists the keys, for credit notes or the next invoice."
    )
    is_not_archived = f"An archive is not what was sealed, or cannot be read: {wrong.what} {wrong.fix}" if wrong else ""
    return dg.AssetCheckResult(
        check_name=_NAME,
        passed=not found and wrong is None,
        severity=dg.AssetCheckSeverity.WARN,
        description=" ".join(filter(None, (is_not_archived, came if found else ""))) or None,
        metadata={
            "count": keys,
            "sealed_months": len({one.month for one in sealed}),
            **sample("sample", [key for month in found for key in month.sample][:SAMPLE_ROWS], KeySinceSeal),
        },
    )


def _came(
    step: Step, tables: BillingTables, recalled: Sequence[Remembered]
) -> tuple[list[MonthSinceSeal], ReconError | None]:
    """What came after months were sealed, and what is wrong with an archive; only what is not known is looked at."""
    asked = [one for one in recalled if step.full or not one.is_known]
    if not asked:
        return [one.came for one in recalled if one.came is not None], None
    wrong = None
    with step.database.transaction() as connection:
        came = since_seals.since_seals(connection, step.run, tables, [one.month for one in asked])
    archived = [one.month for one in asked if one.month.archived_seen is not None]
    is_audit = step.full and step.run.extent.customers is None
    if archived and (is_audit or {(one.usage, one.month.key) for one in archived} & set(_by_month(came))):
        from recon_pipeline.assets.audited_archives import beside_archives  # noqa: PLC0415 - loads Arrow: few runs need it

        came, wrong = beside_archives(step.database, step.settings, step.run, archived, came, is_audit=is_audit)
    found = _by_month(came)
    looked_at = [replace(one, came=found.get((one.month.usage, one.month.month.key))) for one in asked]
    to_keep = [one for one in looked_at if wrong is None or one.month not in archived]
    if to_keep:
        with step.database.transaction() as connection:
            remembered_since_seals.remember(connection, tables, to_keep)
    known = {one.month: one.came for one in (*recalled, *looked_at)}
    return [one for one in known.values() if one is not None], wrong


def _by_month(found: Sequence[MonthSinceSeal]) -> dict[tuple[MeteredUsage, str], MonthSinceSeal]:
    return {(one.usage, one.partition): one for one in found}
