"""The command `recon reconcile`: from what a person asks to runs of contiguous months, and back to one answer."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.periods import BillingMonth, contiguous_ranges, months_between, require_known
from recon_pipeline.core.scope import Extent
from recon_pipeline.faces.console import EXIT_BLOCKED, EXIT_CLEAN, EXIT_NOT_CLEAN, err, out
from recon_pipeline.faces.orchestrator import open_instance
from recon_pipeline.faces.reconcile_job import Reconciled, Request, reconcile
from recon_pipeline.settings import RECENT_DAYS, Settings

_SUMS = (
    "events_scanned",
    "counters_scanned",
    "drift_count",
    "rows_repaired",
    "dedupe_count",
    "reconcile_failures",
    "over_quota_transitions",
    "under_quota_transitions",
    "held_count",
)


@dataclass(frozen=True)
class Asked:
    """The options of the command as given.

    Attributes:
        periods: Partition keys, `YYYY-MM`.
        every_period: All months from RECON_START_PERIOD to the current one.
        customers: Only these.
        dry_run: Repair nothing.
        full: Take sums from the log itself.
        while_paused: Repair although repairs are paused.
        approve_reason: Why a repair beyond the budgets is right, or None.
        approve_run: The blocked run whose figures were seen, or None for the latest.
    """

    periods: tuple[str, ...]
    every_period: bool
    customers: tuple[str, ...]
    dry_run: bool
    full: bool
    while_paused: bool
    approve_reason: str | None
    approve_run: str | None


def run_reconcile(settings: Settings, asked: Asked) -> tuple[Reconciled, ...]:
    """Reconcile what was asked, one run for each contiguous range of months, in order.

    Raises:
        ConfigurationError: A period that does not exist or may not be touched, or an empty customer or reason.
        ReconError: A run that could not look at anything.
    """
    _require_usable(asked)
    months = _months(settings, asked)
    with open_instance() as instance:
        ended: list[Reconciled] = []
        for first, last in contiguous_ranges(months):
            request = Request(
                first,
                last,
                asked.customers,
                asked.dry_run,
                asked.full,
                asked.while_paused,
                asked.approve_reason or "",
                asked.approve_run or "",
            )
            with err.status(f"Reconciling {first.key} to {last.key} …"):
                ended.append(reconcile(settings, instance, request))
        return tuple(ended)


def exit_code(ended: Sequence[Reconciled], *, dry_run: bool) -> int:
    """0 if every counter matches (or would be looked at only), 3 if a guard blocked a run, else 1."""
    outcomes = {one.record.outcome for one in ended}
    if "blocked" in outcomes:
        return EXIT_BLOCKED
    drifted = any(one.record.drift_count for one in ended)
    clean = outcomes == {"compared"} and not drifted if dry_run else outcomes == {"clean"}
    return EXIT_CLEAN if clean else EXIT_NOT_CLEAN


def as_json(ended: Sequence[Reconciled], *, dry_run: bool) -> dict[str, Any]:
    """The one object of `--json`; figures of several runs are added up."""
    records = [one.record for one in ended]
    by_kind: Counter[str] = Counter()
    for record in records:
        by_kind.update(record.drift_by_kind or {})
    return {
        "success": exit_code(ended, dry_run=dry_run) == EXIT_CLEAN,
        "blocked": any(record.outcome == "blocked" for record in records),
        "paused": any(record.outcome == "paused" for record in records),
        "put_off": any(record.outcome == "put_off" for record in records),
        "dry_run": dry_run,
        "run_id": records[0].run_id,
        "run_ids": [record.run_id for record in records],
        "partitions": [
            month.key
            for record in records
            for month in months_between(
                BillingMonth.parse(record.first_partition), BillingMonth.parse(record.last_partition)
            )
        ],
        "mode": records[0].mode,
        "mode_reason": records[0].mode_reason,
        "rebuilt_because": next((record.rebuilt_because for record in records if record.rebuilt_because), None),
        "aggregates_differing": _total(record.aggregates_differing for record in records),
        "drift_by_kind": dict(by_kind),
        **{name: sum(getattr(record, name) or 0 for record in records) for name in _SUMS},
        "duration_ms": round(sum(record.duration_ms for record in records)),
        "errors": [record.error for record in records if record.error],
    }


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
        for check in one.failed_checks:
            style = "red" if check.is_error else "yellow"
            out.print(f"[{style}]{check.name}[/]", escape(check.description), sep="\n")
        if record.error and record.error not in {check.description for check in one.failed_checks}:
            out.print(record.error, style="red", markup=False)


def _require_usable(asked: Asked) -> None:
    if asked.approve_run is not None and asked.approve_reason is None:
        raise ConfigurationError("--approve-run is given without --approve.", fix='Add --approve "your reason".')
    for option, values in (
        ("--customer", asked.customers),
        ("--approve-run", (asked.approve_run,) if asked.approve_run is not None else ()),
        ("--approve", (asked.approve_reason,) if asked.approve_reason is not None else ()),
    ):
        for value in values:
            if not value.strip() or not value.isprintable():
                raise ConfigurationError(
                    f"{option} is {value!r}, which is empty or not printable text.",
                    fix=f"Give {option} a value, for example "
                    + {
                        "--customer": "--customer cus_123.",
                        "--approve": '--approve "ledger import of 3 May".',
                        "--approve-run": "--approve-run 4f1c9a02.",
                    }[option],
                )


def _total(values: Iterable[int | None]) -> int | None:
    """The sum of those that are known, or None if none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _figure(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _months(settings: Settings, asked: Asked) -> tuple[BillingMonth, ...]:
    from recon_pipeline.settings import known_months

    if asked.periods and asked.every_period:
        raise ConfigurationError("--period and --all exclude each other.", fix="Give one of them.")
    first, current = known_months()
    if asked.every_period:
        return months_between(first, current)
    if asked.periods:
        months = tuple(BillingMonth.parse(key) for key in asked.periods)
        require_known(months, first=first, current=current)
        return months
    return months_of_a_tick(settings)


def months_of_a_tick(settings: Settings) -> tuple[BillingMonth, ...]:
    """The months that a tick of the schedule would take.

    Raises:
        ReconError: The database cannot be reached, or the log cannot be trusted.
    """
    from recon_pipeline.settings import known_months
    from recon_pipeline.store.log.decision import decision
    from recon_pipeline.store.postgres.database import open_database
    from recon_pipeline.store.records.schedule import months_to_reconcile
    from recon_pipeline.store.sums import strategy

    first, current = known_months()
    with open_database(settings).connection() as connection, decision(connection) as tables:
        sums = strategy.mode(connection, tables).sums
        extent = Extent(settings.scope, first, current)
        return (*months_to_reconcile(connection, extent, tables, recent_days=RECENT_DAYS, sums=sums), current)
