"""How runs of the job `reconcile` ended: typed, as JSON, and for a person. Knows nothing of Dagster."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from rich.markup import escape
from rich.table import Table

from recon_pipeline.core.errors import one_line
from recon_pipeline.core.periods import BillingMonth, instant_in_words, months_between
from recon_pipeline.faces.console import EXIT_BLOCKED, EXIT_CLEAN, EXIT_NOT_CLEAN, out
from recon_pipeline.store.counters.compare import DriftedKey
from recon_pipeline.store.records.runs import RunRecord
from recon_pipeline.store.sums.run import SAMPLE_ROWS


@dataclass(frozen=True)
class FailedCheck:
    """An asset check of the run that did not pass.

    Attributes:
        name: Of the check.
        is_error: Error or warning.
        description: Of what it found.
    """

    name: str
    is_error: bool
    description: str


@dataclass(frozen=True)
class Reconciled:
    """How a run ended.

    Attributes:
        record: Its figures, as recorded in schema recon.
        failed_checks: What did not pass.
        largest: The drifted keys that matter most, quota transitions first, then the largest differences: of a blocked
            or a dry run, of all; of one that left counters alone because events left the log, of these.
    """

    record: RunRecord
    failed_checks: tuple[FailedCheck, ...]
    largest: tuple[DriftedKey, ...] = ()


@dataclass(frozen=True)
class Summary:
    """How one or several runs ended, figures added up; the fields are the keys of `--json`."""

    success: bool
    blocked: bool
    paused: bool
    put_off: bool
    dry_run: bool
    run_id: str
    run_ids: tuple[str, ...]
    partitions: tuple[str, ...]
    mode: str
    mode_reason: str | None
    rebuilt_because: str | None
    aggregates_differing: int | None
    drift_by_kind: dict[str, int]
    events_scanned: int
    counters_scanned: int
    drift_count: int
    rows_repaired: int
    dedupe_count: int
    reconcile_failures: int
    over_quota_transitions: int
    under_quota_transitions: int
    held_count: int
    doubtful_count: int
    events_left_the_log: tuple[dict[str, Any], ...]
    duration_ms: int
    errors: tuple[str, ...]
    largest: tuple[DriftedKey, ...]


def summarize(ended: Sequence[Reconciled], *, dry_run: bool) -> Summary:
    """The runs as one answer; it is a success if every counter matches, and none would be repaired in a dry run."""
    records = [one.record for one in ended]
    outcomes = {record.outcome for record in records}
    drifted = any(record.drift_count for record in records)
    by_kind: Counter[str] = Counter()
    for record in records:
        by_kind.update(record.drift_by_kind or {})
    return Summary(
        success=outcomes == {"compared"} and not drifted if dry_run else outcomes == {"clean"},
        blocked="blocked" in outcomes,
        paused="paused" in outcomes,
        put_off="put_off" in outcomes,
        dry_run=dry_run,
        run_id=records[0].run_id,
        run_ids=tuple(record.run_id for record in records),
        partitions=tuple(month.key for record in records for month in _months(record)),
        mode=records[0].mode,
        mode_reason=records[0].mode_reason,
        rebuilt_because=next((record.rebuilt_because for record in records if record.rebuilt_because), None),
        aggregates_differing=_total_or_none(record.aggregates_differing for record in records),
        drift_by_kind=dict(by_kind),
        events_scanned=_total(record.events_scanned for record in records),
        counters_scanned=_total(record.counters_scanned for record in records),
        drift_count=_total(record.drift_count for record in records),
        rows_repaired=_total(record.rows_repaired for record in records),
        dedupe_count=_total(record.dedupe_count for record in records),
        reconcile_failures=_total(record.reconcile_failures for record in records),
        over_quota_transitions=_total(record.over_quota_transitions for record in records),
        under_quota_transitions=_total(record.under_quota_transitions for record in records),
        held_count=_total(record.held_count for record in records),
        doubtful_count=_total(record.doubtful_count for record in records),
        events_left_the_log=tuple(month for record in records for month in record.events_left_the_log or ()),
        duration_ms=round(sum(record.duration_ms for record in records)),
        errors=tuple(record.error for record in records if record.error),
        largest=tuple(sorted((key for one in ended for key in one.largest), key=_importance)[:SAMPLE_ROWS]),
    )


def _importance(key: DriftedKey) -> tuple[bool, Decimal]:
    """The order of the keys of several runs, the same as within each."""
    return (not key.quota_transition, -abs(Decimal(key.difference)))


def exit_code(summary: Summary) -> int:
    """0 for a success, 3 if a guard blocked a run, else 1."""
    if summary.blocked:
        return EXIT_BLOCKED
    return EXIT_CLEAN if summary.success else EXIT_NOT_CLEAN


def as_json(summary: Summary) -> dict[str, Any]:
    """The one object of `--json`."""
    return asdict(summary)


def show(ended: Sequence[Reconciled], *, dry_run: bool) -> None:
    """The same for a person."""
    for one in ended:
        record = one.record
        table = Table(title=f"{record.first_partition} to {record.last_partition}", show_header=False)
        rows = (
            ("outcome", record.outcome.replace("_", " ")),
            ("drift_count", _figure(record.drift_count)),
            *((f"  {kind}", _figure(count)) for kind, count in (record.drift_by_kind or {}).items()),
            ("rows_repaired", "none: dry run" if dry_run else _figure(record.rows_repaired)),
            ("dedupe_count", _figure(record.dedupe_count)),
            ("reconcile_failures", _figure(record.reconcile_failures)),
            ("over_quota_transitions", _figure(record.over_quota_transitions)),
            ("under_quota_transitions", _figure(record.under_quota_transitions)),
            ("deferred", _figure(record.deferred_count)),
            *((("held", _figure(record.held_count)),) if record.held_count else ()),
            *((("doubtful", _figure(record.doubtful_count)),) if record.doubtful_count else ()),
            ("events_scanned", _figure(record.events_scanned)),
            ("counters_scanned", _figure(record.counters_scanned)),
            ("mode", record.mode + (f": {record.mode_reason}" if record.mode_reason else "")),
            *((("rebuilt because", record.rebuilt_because),) if record.rebuilt_because else ()),
            *((("aggregates differing", _figure(record.aggregates_differing)),) if record.aggregates_differing else ()),
            ("duration", f"{record.duration_ms / 1000:.1f} s"),
            ("run", record.run_id),
        )
        for name, value in rows:
            table.add_row(name, value)
        out.print(table)
        _show_keys(one)
        for check in one.failed_checks:
            style = "red" if check.is_error else "yellow"
            # Not wrapped: a command in it is to be copied as it stands.
            out.print(f"[{style}]{check.name}[/]", escape(check.description), sep="\n", soft_wrap=True)
        if record.error and record.error not in {check.description for check in one.failed_checks}:
            out.print(record.error, style="red", markup=False, soft_wrap=True)


def _show_keys(one: Reconciled) -> None:
    """The keys that a run would have repaired, or that it reports and leaves alone."""
    if not one.largest:
        return
    record = one.record
    shown_of = record.drift_count if record.is_preview else record.doubtful_count
    more = (shown_of or 0) - len(one.largest)
    out.print(f"The {len(one.largest)} largest differences:" if more > 0 else "Differences:")
    for key in one.largest:
        counter = "no counter" if key.usage_count is None else f"counter {key.usage_count}"
        sign = "" if key.difference.startswith("-") else "+"
        effect = {"over": ", goes over the limit", "under": ", comes back under the limit"}
        out.print(
            f"  {one_line(key.gateway_customer_id)} {key.usage_type} {instant_in_words(key.period_start)} to "
            f"{instant_in_words(key.period_end)}: "
            f"{key.kind}, {counter}, event sum {key.event_sum} ({sign}{key.difference})"
            f"{effect.get(key.quota_transition, '')}{f'; {key.outcome}: {key.error}' if key.error else ''}",
            markup=False,
            soft_wrap=True,
        )
    if more > 0:
        out.print(f"  … and {more:,} more, in recon.counter_drift", soft_wrap=True)


def _months(record: RunRecord) -> tuple[BillingMonth, ...]:
    return months_between(BillingMonth.parse(record.first_partition), BillingMonth.parse(record.last_partition))


def _total(values: Iterable[int | None]) -> int:
    return _total_or_none(values) or 0


def _total_or_none(values: Iterable[int | None]) -> int | None:
    """The sum of those that are known, or None if none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _figure(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
