"""Events that never arrived, inserted into the log from an export of the source's audit log.

This step changes no counter: the steps after it in the same run find the drift and repair it under their guards, as
after any other change of the log.
"""

import json
import uuid
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import chain
from typing import Any

import dagster as dg
from pydantic import Field

from recon_pipeline.assets import figures
from recon_pipeline.assets.handover import preview_metadata, unread_metadata
from recon_pipeline.assets.names import Names
from recon_pipeline.assets.options import asset_options, step_of
from recon_pipeline.assets.reconciler import Step
from recon_pipeline.assets.tables import sample
from recon_pipeline.core.backfill.mapping import MappingSpec, parse_mapping
from recon_pipeline.core.backfill.placement import WritableMonths
from recon_pipeline.core.backfill.reading import Readings, read_rows
from recon_pipeline.core.backfill.rows import SourceRows
from recon_pipeline.core.periods import BillingMonth, require_known
from recon_pipeline.settings import known_months
from recon_pipeline.sources.names import Unread, shown_source
from recon_pipeline.store.backfill import batches, load
from recon_pipeline.store.backfill.batches import Batch, NotTaken
from recon_pipeline.store.backfill.dry_run import PreviewOptions
from recon_pipeline.store.backfill.exports import is_in_database, read_export

ROWS_SHOWN = 20
_Result = dg.MaterializeResult | dg.AssetCheckResult

on_progress: ContextVar[load.OnProgress] = ContextVar("on_progress", default=lambda rows_read, done: None)
"""Called as rows are read: the progress bar, if a command started the run."""


@dataclass(frozen=True)
class ShownRow:
    """A row that was not taken, as a line of a table."""

    kind: str
    source: str
    line: int
    reasons: str
    raw_row: str
    stays: str


class Backfill(dg.Config):
    """What a person sets for one backfill, in the launchpad or through the command line."""

    source: list[str] = Field(
        default=[],
        description="Files, globs, folders or URLs (CSV, JSON, Parquet, ORC; packed or not), table:NAME or query:SQL "
        "of the billing database. Empty: nothing is inserted, and the steps that follow are a replay.",
    )
    mapping: dict[str, Any] = Field(
        default={},
        description="The mapping of columns, as in a mapping file (docs/replay.md). Empty: columns have the names of "
        "billing_usage_events.",
    )
    periods: list[str] = Field(
        default=[],
        description="Only these billing months, as YYYY-MM; rows of others are rejected. Empty: all months of the run.",
    )
    dry_run: bool = Field(default=False, description="Show what would happen, and insert nothing.")


def backfilled_events(names: Names) -> dg.AssetsDefinition:
    """The asset with its checks, of the installation of that name."""
    key = names.key("backfilled_events")

    @dg.asset(
        key=key,
        output_required=False,
        check_specs=[
            dg.AssetCheckSpec(
                "rows_add_up",
                asset=key,
                blocking=True,
                description="Every row that was read has exactly one outcome: inserted, duplicate, conflict or "
                "rejected.",
            ),
            dg.AssetCheckSpec(
                "rows_were_taken",
                asset=key,
                description="Every row is in the log. A row that is not is kept with every reason, so that it can be "
                "exported and fixed.",
            ),
        ],
        owners=["team:billing"],
        kinds={"postgres"},
        description="Late events, inserted from an export that the config names, each once. Without a source nothing "
        "is inserted.",
        **asset_options(names),
    )
    def backfilled(context: dg.AssetExecutionContext, config: Backfill) -> Iterator[_Result]:
        if not config.source:
            nothing = {"rows_read": 0, "note": "No source was given in the config: nothing was to be inserted."}
            checks = [_passed("rows_add_up"), _passed("rows_were_taken")]
            yield dg.MaterializeResult(metadata=nothing, check_results=checks)
            return
        with step_of(context, names) as step:
            yield from _backfilled(context, config, step)

    return backfilled


def _backfilled(context: dg.AssetExecutionContext, config: Backfill, step: Step) -> Iterator[_Result]:
    """Insert what the sources hold and the log does not."""
    unread: list[Unread] = []
    request, pieces, shape = _prepared(step, config, unread)
    if config.dry_run:
        question = PreviewOptions(step.settings.scope, step.settings.quotas, step.settings.paid_statuses)
        batch, preview = load.preview(step.database, request, shape, pieces, on_progress.get(), question)
        found = {**_texts(batch, unread), **_counts(batch), **preview_metadata(preview)}
        context.log_event(dg.AssetObservation(context.asset_key, metadata=found))
        yield _adds_up(batch)
        yield _taken(batch, _not_taken(step, batch))
        return
    batch, inserted = load.run(step.database, request, shape, pieces, on_progress.get())
    checks = [_adds_up(batch), _taken(batch, _not_taken(step, batch))]
    counts = figures.by_month(context, step.run.extent, _counts(batch), lambda month: {"inserted": inserted[month]})
    yield dg.MaterializeResult(metadata={**_texts(batch, unread), **counts}, check_results=checks)


def _prepared(
    step: Step, config: Backfill, unread: list[Unread]
) -> tuple[load.BackfillRequest, Iterator[Readings], load.LogShape]:
    spec = parse_mapping(config.mapping) if config.mapping else None
    asked = frozenset(map(BillingMonth.parse, config.periods)) or None
    first, current = known_months()
    require_known(sorted(asked or ()), first=first, current=current)
    with step.database.transaction() as connection:
        shape = load.require_insertable(
            connection, dry_run=config.dry_run, refuses_negative=step.settings.refuses_negative
        )
    batch_id = str(uuid.uuid4())
    request = load.BackfillRequest(
        batch_id=batch_id,
        run_id=step.run.run_id,
        sources=tuple(map(shown_source, config.source)),
        mapping=config.mapping,
        periods=tuple(config.periods) or None,
        writable=WritableMonths(step.run.extent.first, step.run.extent.last, asked),
        started_by=step.approved_by,
        settle_seconds=step.run.settle_seconds,
    )
    pieces = read_rows(
        _opened(step, config.source, spec, unread),
        spec,
        batch_id=batch_id,
        quantity_range=shape.quantity_range,
        scope=step.settings.scope,
    )
    return request, pieces, shape


def _opened(step: Step, sources: list[str], spec: MappingSpec | None, unread: list[Unread]) -> Iterator[SourceRows]:
    """Tables and queries first, then files, so that the progress of the files is one."""
    # Only now: pyarrow takes half a second, and most runs have no source.
    from recon_pipeline.sources.rows import CHUNK_ROWS, read_files  # noqa: PLC0415

    exports = [
        read_export(step.database, source, chunk_rows=CHUNK_ROWS) for source in sources if is_in_database(source)
    ]
    files = [source for source in sources if not is_in_database(source)]
    read = read_files(
        files,
        encoding=spec.encoding if spec else "utf-8",
        delimiter=spec.delimiter if spec else None,
        quote=spec.quote if spec else None,
        skip=spec.skip if spec else (),
        on_unread=unread.append,
    )
    return chain(*exports, read)


def _not_taken(step: Step, batch: Batch) -> tuple[NotTaken, ...]:
    with step.database.transaction() as connection:
        return batches.not_taken(connection, batch.batch_id, rows=ROWS_SHOWN)


def _counts(batch: Batch) -> figures.Figures:
    return {
        "rows_read": batch.rows_read,
        "inserted": batch.inserted,
        "duplicate": batch.duplicate,
        "conflict": batch.conflict,
        "rejected": batch.rejected,
        "skipped": batch.skipped,
    }


def _texts(batch: Batch, unread: list[Unread]) -> dict[str, Any]:
    return {
        "batch_id": batch.batch_id,
        "dry_run": batch.dry_run,
        "partitions": ", ".join(batch.partitions),
        **unread_metadata(unread),
    }


def _shown(row: NotTaken) -> ShownRow:
    stays = json.dumps(row.stays) if row.stays else ""
    return ShownRow(row.kind, row.source, row.line, "; ".join(row.reasons), row.raw_row, stays)


def _passed(name: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(check_name=name, passed=True)


def _adds_up(batch: Batch) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name="rows_add_up",
        passed=batch.adds_up,
        description=f"{batch.rows_read:,} rows read = {batch.inserted:,} inserted + {batch.duplicate:,} duplicate "
        f"+ {batch.conflict:,} in conflict + {batch.rejected:,} rejected"
        f"{f'; {batch.skipped:,} more are left out by skip_when' if batch.skipped else ''}.",
    )


def _taken(batch: Batch, left: tuple[NotTaken, ...]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name="rows_were_taken",
        passed=batch.is_clean,
        severity=dg.AssetCheckSeverity.WARN,
        description=None
        if batch.is_clean
        else f"{batch.conflict:,} rows are in conflict with events of the log, which stay, and {batch.rejected:,} were "
        f"rejected. Export them: recon rejected {batch.batch_id[:8]} --output rejected.csv; "
        "fix that file, and backfill it.",
        metadata={"count": batch.conflict + batch.rejected, **sample("sample", tuple(map(_shown, left)), ShownRow)},
    )
