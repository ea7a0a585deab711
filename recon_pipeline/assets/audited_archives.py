"""What came after months were archived, from their archives themselves; an audit also proves that they are as sealed.

Knows no Dagster. Invariant: an archive that cannot be read, or is not what was recorded, is said and hides nothing:
what stored sums say of its month stays. Nothing is repaired by an archive: counters follow the seal.
"""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from recon_pipeline.assets.archived_corrections import corrections_beside_archive
from recon_pipeline.assets.archiving import verify_archives
from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.exact import as_text, total
from recon_pipeline.core.scope import Extent
from recon_pipeline.settings import Settings
from recon_pipeline.store.counters.corrections import Correction, corrections
from recon_pipeline.store.counters.seal_records import RecordedSeal
from recon_pipeline.store.counters.since_seals import KeySinceSeal, MonthSinceSeal
from recon_pipeline.store.log.decision import decision
from recon_pipeline.store.log.sealed_months import SealedMonth
from recon_pipeline.store.postgres.database import STATEMENT_TIMEOUT_MS, BillingDatabase
from recon_pipeline.store.sums.run import SAMPLE_ROWS, Reconciliation


def beside_archives(
    database: BillingDatabase,
    settings: Settings,
    run: Reconciliation,
    archived: Sequence[SealedMonth],
    by_sums: Sequence[MonthSinceSeal],
    *,
    is_audit: bool,
) -> tuple[tuple[MonthSinceSeal, ...], ReconError | None]:
    """What came after months were sealed, exactly so of archived ones, and what is wrong with an archive, or None.

    Args:
        database: Of the run.
        settings: With what names an event.
        run: Any of this scope.
        archived: The archived months that are looked at.
        by_sums: What stored sums say came after, of these and other months.
        is_audit: Whether every archive is computed again, and every archived month compared; else those of `by_sums`.
    """
    said = {(one.usage, one.partition) for one in by_sums}
    asked = [one for one in archived if is_audit or (one.usage, one.month.key) in said]
    exact: list[MonthSinceSeal] = []
    try:
        with database.connection() as connection:
            wrong = verify_archives(connection, settings, [one.seal_id for one in asked]) if is_audit else None
            if wrong is not None:
                return tuple(by_sums), wrong
            with decision(connection, "REPEATABLE READ", idle_timeout_ms=STATEMENT_TIMEOUT_MS) as tables:

                def beside_archive(of: Reconciliation, seal: RecordedSeal) -> list[Correction]:
                    return corrections_beside_archive(connection, settings, of, tables, seal)

                for one in asked:
                    of_month = replace(run, extent=Extent((one.usage,), one.month, one.month))
                    found = corrections(connection, of_month, tables, [one.month], beside_archive=beside_archive)
                    exact += [_summary(one, found)] if found else []
    except ReconError as error:
        return tuple(by_sums), error
    replaced = {(one.usage, one.month.key) for one in asked}
    others = [one for one in by_sums if (one.usage, one.partition) not in replaced]
    return (*others, *exact), None


def _summary(sealed: SealedMonth, found: Sequence[Correction]) -> MonthSinceSeal:
    largest = sorted(found, key=lambda one: (-abs(Decimal(one.difference)), one.gateway_customer_id, one.period_start))
    return MonthSinceSeal(
        sealed.usage,
        sealed.month.key,
        len(found),
        sum(max(len(one.events), abs(one.events_now - one.sealed_events)) for one in found),
        as_text(total(Decimal(one.difference).copy_abs() for one in found)),
        tuple(
            KeySinceSeal(
                one.partition, one.gateway_customer_id, one.usage_type, one.period_start, one.period_end,
                one.sealed_sum, one.sum_now, one.events_now - one.sealed_events,
            )
            for one in largest[:SAMPLE_ROWS]
        ),
    )  # fmt: skip
