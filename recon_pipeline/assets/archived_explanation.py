"""Explains a key of an archived month by the events of archive and log, whatever part the log still has.

Knows no Dagster. Invariant: an archive is read only if the log has other events of the key than were sealed, and its
files only if they are what was recorded.
"""

from collections.abc import Callable
from dataclasses import replace
from uuid import uuid4

from sqlalchemy import Connection

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import Extent
from recon_pipeline.lake.archive_files import fetched, read_manifest, with_decimals
from recon_pipeline.lake.archived_key import events_of_key
from recon_pipeline.lake.folders import Folder
from recon_pipeline.settings import Settings
from recon_pipeline.store.archive.export import month_to_archive
from recon_pipeline.store.archive.in_place_of_log import columns_explained, in_place_of_log
from recon_pipeline.store.archive.records import newest_archive
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.log.sealed_months import read_sealed_months
from recon_pipeline.store.records.explain import Explanation, Key
from recon_pipeline.store.sums.run import Reconciliation


def with_archive(
    connection: Connection,
    settings: Settings,
    tables: BillingTables,
    customer: str,
    key: Key,
    explained: Callable[[], Explanation],
) -> Explanation:
    """What `explained` says of a key, where the events of its archive are in the place of those that left the log.

    Args:
        connection: In a REPEATABLE READ transaction that has locked the tables.
        settings: With what names an event.
        tables: How the tables are shaped.
        customer: By gateway_customer_id.
        key: Of an archived month.
        explained: Explains it by the log as this transaction sees it.

    Raises:
        ReconError: The archive is not what was recorded, or cannot be reached.
    """
    month = BillingMonth.containing(key.period_start)
    sealed = next(one for one in read_sealed_months(connection) if (one.usage, one.month) == (key.usage, month))
    archive = newest_archive(connection, sealed.seal_id)
    if archive is None:
        return explained()
    folder = Folder.of(archive.folder)
    manifest = read_manifest(folder, archive.manifest_checksum)
    run = Reconciliation.of(settings, str(uuid4()), Extent((key.usage,), month, month, (customer,)))
    columns = columns_explained(connection)
    wanted = customer, key.period_start.isoformat(), key.period_end.isoformat()
    with month_to_archive(connection, run, tables, key.usage, covers_until=sealed.covers_until) as log:
        events = events_of_key(
            fetched(folder, manifest),
            with_decimals(log.schema, log.batches, log.decimals),
            settings.event_identity.columns,
            wanted,
            columns,
        )
        with in_place_of_log(connection, columns, events):
            return replace(explained(), events_from="log and archive")
