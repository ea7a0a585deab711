"""A backfill through the store's functions, without Dagster; as a program it kills itself after some chunks."""

import os
import signal
import sys
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from recon_pipeline.core.backfill.mapping import parse_mapping
from recon_pipeline.core.backfill.placement import WritableMonths
from recon_pipeline.core.backfill.reading import read_rows
from recon_pipeline.core.event_identity import EventIdentity
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import MeteredUsage, parse_scope
from recon_pipeline.sources import rows
from recon_pipeline.sources.finding import Unread
from recon_pipeline.sources.rows import read_files
from recon_pipeline.store.backfill import load
from recon_pipeline.store.backfill.batches import Batch
from recon_pipeline.store.backfill.dry_run import PreviewOptions
from recon_pipeline.store.postgres.database import BillingDatabase

SCOPE = parse_scope("stripe:remote_commands")
DEFAULT_IDENTITY = EventIdentity()
SPEC = {
    "gateway_name": {"value": "stripe"},
    "usage_type": {"value": "remote_commands"},
    "gateway_customer_id": "customer",
    "request_id": "request",
    "quantity": "units",
    "event_timestamp": "at",
}


def insert_file(
    url: str,
    path: str,
    on_progress: Callable[[int], object] = lambda _: None,
    *,
    mapping: Mapping[str, Any] = SPEC,
    months: tuple[str, str] = ("2025-01", "2025-12"),
    settle_seconds: int = 0,
    on_unread: Callable[[Unread], object] = lambda _: None,
    scope: tuple[MeteredUsage, ...] = SCOPE,
    event_identity: EventIdentity = DEFAULT_IDENTITY,
    refuses_negative: bool = True,
    dry_run: bool = False,
) -> Batch:
    """Insert one file of events, from the first of the months to the last; or only say what would become of it."""
    database = BillingDatabase(url, event_identity=event_identity)
    batch_id, spec = str(uuid.uuid4()), parse_mapping(mapping)
    with database.transaction() as connection:
        shape = load.require_insertable(connection, dry_run=dry_run, refuses_negative=refuses_negative)
    pieces = read_rows(
        read_files(
            [path],
            encoding=spec.encoding,
            delimiter=spec.delimiter,
            quote=spec.quote,
            skip=spec.skip,
            on_unread=on_unread,
        ),
        spec,
        batch_id=batch_id,
        quantity_range=shape.quantity_range,
        scope=scope,
    )
    writable = WritableMonths(BillingMonth.parse(months[0]), BillingMonth.parse(months[1]))
    request = load.BackfillRequest(batch_id, "run", (path,), mapping, None, writable, "tests", settle_seconds)
    if dry_run:
        question = PreviewOptions(scope, {}, ())
        return load.preview(database, request, shape, pieces, lambda rows_read, _: on_progress(rows_read), question)[0]
    return load.run(database, request, shape, pieces, lambda rows_read, _: on_progress(rows_read))[0]


def _die_after(rows_wanted: int) -> Callable[[int], object]:
    def report(rows_read: int) -> None:
        if rows_read >= rows_wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    return report


if __name__ == "__main__":
    url, path, chunk_rows, rows_wanted = sys.argv[1:]
    rows.CHUNK_ROWS = int(chunk_rows)
    insert_file(url, path, _die_after(int(rows_wanted)))
