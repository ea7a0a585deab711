"""What `recon corrections` does: what came after months were sealed, as a table, JSON, CSV and Parquet."""

import json
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.periods import BillingMonth, instant_in_words
from recon_pipeline.core.scope import Extent
from recon_pipeline.faces.billing import billing_database
from recon_pipeline.faces.console import out
from recon_pipeline.faces.finance_file import Kind, require_writable, write_rows
from recon_pipeline.settings import Settings
from recon_pipeline.store.counters import corrections as store
from recon_pipeline.store.counters.corrections import Correction
from recon_pipeline.store.counters.seal_records import RecordedSeal
from recon_pipeline.store.log.decision import decision
from recon_pipeline.store.postgres.database import STATEMENT_TIMEOUT_MS
from recon_pipeline.store.records.retention import read_retention
from recon_pipeline.store.sums.run import Reconciliation

ROWS_SHOWN = 20
_NUMBERS, _COUNTS = ("sealed_sum", "sum_now", "difference"), ("sealed_events", "events_now")
_COLUMNS = {
    field.name: Kind.NUMBER if field.name in _NUMBERS else Kind.COUNT if field.name in _COUNTS else Kind.TEXT
    for field in fields(Correction)
}


def find(settings: Settings, months: tuple[BillingMonth, ...], output: Path | None) -> tuple[Correction, ...]:
    """Find the keys of sealed months whose events are not those that were sealed; write them to a file if one is named.

    Raises:
        ConfigurationError: The file has another ending, or cannot be written.
        ReconError: A month is not sealed, or the database cannot be used.
    """
    require_writable(output, example="corrections.csv")
    question = Reconciliation.of(settings, str(uuid.uuid4()), Extent(settings.scope, months[0], months[0]))
    with (
        billing_database(settings).connection() as connection,
        decision(connection, "REPEATABLE READ", idle_timeout_ms=STATEMENT_TIMEOUT_MS) as tables,
    ):
        retention = read_retention(connection)
        gone = [month for month in months if retention is not None and month.key < retention.before_partition]
        if gone:
            raise ReconError(
                f"What came after {gone[0].key} was sealed is not known: {retention}.",
                changed="Nothing was written.",
                fix="Ask for later months. recon verify-seals checks the seal itself.",
            )

        def beside_archive(of: Reconciliation, seal: RecordedSeal) -> list[Correction]:
            from recon_pipeline.assets.archived_corrections import corrections_beside_archive  # noqa: PLC0415 - slow

            return corrections_beside_archive(connection, settings, of, tables, seal)

        found = store.corrections(connection, question, tables, sorted(set(months)), beside_archive=beside_archive)
    if output is not None:
        rows = [asdict(one) | {"events": json.dumps([asdict(event) for event in one.events])} for one in found]
        write_rows(rows, _COLUMNS, output)
    return found


def as_json(found: Sequence[Correction]) -> dict[str, Any]:
    """The one object of `--json`."""
    return {"success": True, "count": len(found), "corrections": [asdict(one) for one in found]}


def show(found: Sequence[Correction], output: Path | None) -> None:
    """The same for a person."""
    if not found:
        out.print("What was sealed is exactly what is there now: nothing is to be corrected.", soft_wrap=True)
    else:
        table = Table(box=None, padding=(0, 2, 0, 0))
        has_usages = len({(one.gateway_name, one.usage_type) for one in found}) > 1
        for heading in (*(("usage",) if has_usages else ()), "customer", "from", "to"):
            table.add_column(heading, overflow="fold")
        for heading in ("sealed", "now", "difference"):
            table.add_column(heading, justify="right", overflow="fold")  # a sum that is cut is another sum
        table.add_column("events", overflow="fold")
        for one in found[:ROWS_SHOWN]:
            usage = (f"{one.gateway_name}:{one.usage_type}",) if has_usages else ()
            period = instant_in_words(one.period_start), instant_in_words(one.period_end)
            sums = one.sealed_sum, one.sum_now, one.difference
            table.add_row(*map(escape, (*usage, one.gateway_customer_id, *period, *sums, _events(one))))
        out.print(table)
        if len(found) > ROWS_SHOWN:
            out.print(f"… and {len(found) - ROWS_SHOWN:,} more keys: --output FILE writes all of them.")
    if output is not None:
        out.print(f"{len(found):,} keys written to {output}", markup=False, soft_wrap=True)


def _events(one: Correction) -> str:
    """What came, changed or is fewer, in a few words; an event that left the log has no row."""
    what = Counter(event.what for event in one.events)
    parts = [f"{count:,} {name}" for name, count in sorted(what.items())]
    fewer = one.sealed_events - one.events_now
    parts.append(f"{fewer:,} fewer than sealed" if fewer > 0 else "")
    named = ", ".join(event.request_id or "" for event in one.events[:3])
    return "; ".join(filter(None, parts)) + (f" ({named}{', …' if len(one.events) > 3 else ''})" if named else "")
