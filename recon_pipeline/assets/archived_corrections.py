"""What there is to correct of an archived month, whatever part of its events the log still has. Knows no Dagster.

Invariant: of an event that both have the log's row is taken. What the archive alone has left the log as it may, and is
no correction; what the log alone has came later.
"""

from collections import defaultdict

from sqlalchemy import Connection

from recon_pipeline.core.errors import NOTHING_CHANGED, ReconError
from recon_pipeline.core.exact import as_text, total
from recon_pipeline.lake.archive_files import fetched, read_manifest, with_decimals
from recon_pipeline.lake.archive_sums import archive_sums
from recon_pipeline.lake.folders import Folder
from recon_pipeline.settings import Settings
from recon_pipeline.store.archive.export import month_to_archive, sealed_sums
from recon_pipeline.store.archive.records import newest_archive
from recon_pipeline.store.counters.corrections import Correction, LaterEvent
from recon_pipeline.store.counters.seal_records import RecordedSeal
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.sums.run import Reconciliation


def corrections_beside_archive(
    connection: Connection, settings: Settings, run: Reconciliation, tables: BillingTables, seal: RecordedSeal
) -> list[Correction]:
    """The keys of an archived month whose events, of archive and log, are not those that were sealed.

    Args:
        connection: In a REPEATABLE READ transaction that has locked the tables.
        settings: With what names an event.
        run: Whose extent is the month of the seal, of its metered usage.
        tables: How the tables are shaped.
        seal: Of the month.

    Raises:
        ReconError: The archive is not what was recorded, or cannot be reached.
    """
    archive = newest_archive(connection, seal.id)
    if archive is None:
        raise ReconError(f"{seal.of_what} is not archived.", changed=NOTHING_CHANGED, fix="Run the command again.")
    folder = Folder.of(archive.folder)
    manifest = read_manifest(folder, archive.manifest_checksum)
    with month_to_archive(connection, run, tables, seal.usage, covers_until=seal.seal.acted_at) as log:
        scale = max(manifest.quantity_scale, *(one.scale or 0 for one in log.columns if one.name == "quantity"))
        with archive_sums(scale, settings.event_identity.columns) as sums:
            sums.add_log(with_decimals(log.schema, log.batches, log.decimals))
            sums.add_files(fetched(folder, manifest))
            with sealed_sums(connection, seal.id) as sealed:
                _, keys = sums.differing(sealed)
            later = sums.of_log_alone() if keys else []
    events = defaultdict[tuple[str, str, str], list[LaterEvent]](list)
    for one in later:
        what = "changed" if one.is_changed else "came later"
        events[one.key].append(LaterEvent(one.request_id, one.quantity, one.event_timestamp, one.created_at, what))
    return [
        Correction(
            seal.seal.partition, seal.usage.gateway_name, seal.usage.usage_type,
            key.gateway_customer_id, key.period_start, key.period_end,
            str(key.sealed_sum), as_text(key.sum_now), as_text(total((key.sum_now, -key.sealed_sum))),
            key.sealed_events, key.events_now,
            tuple(events[key.gateway_customer_id, key.period_start, key.period_end]),
        )
        for key in keys
    ]  # fmt: skip
