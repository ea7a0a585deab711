"""What `recon count-lake` does, and how it is shown."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from recon_pipeline.assets import lake_counting
from recon_pipeline.assets.lake_counting import Counted
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.billing import billing_database
from recon_pipeline.faces.console import err, out
from recon_pipeline.faces.user import user_name
from recon_pipeline.lake.settings import read_lake_settings
from recon_pipeline.lake.tables import TableVersion
from recon_pipeline.settings import Settings
from recon_pipeline.store.lake.counts import LakeCount


def count(settings: Settings, months: Sequence[BillingMonth]) -> tuple[Counted, ...]:
    """Count months in the lake.

    Raises:
        ConfigurationError: RECON_LAKE or a variable beside it cannot be used, or no run looks at a month.
        ReconError: The lake cannot be read, or the database cannot be used.
    """
    lake = read_lake_settings()
    with err.status("Counting the lake …"):
        return lake_counting.count_months(billing_database(settings), settings, lake, months, counted_by=user_name())


def withdraw(settings: Settings, month: BillingMonth, *, reason: str) -> tuple[LakeCount, ...]:
    """Let a month follow the log again.

    Raises:
        ReconError: It does not follow the lake, or the database cannot be used.
    """
    return lake_counting.withdraw(billing_database(settings), settings, month, withdrawn_by=user_name(), reason=reason)


def counted_as_json(done: Sequence[Counted]) -> dict[str, Any]:
    """The one object of `--json`."""
    return {
        "success": True,
        "months": [
            {
                "partition": one.month.key,
                "usage": str(one.usage),
                "is_new": one.is_new,
                "reason": one.reason or None,
                "in_no_month": one.in_no_month if one.is_new else None,
                "count": None if one.count is None else _as_json(one.count),
            }
            for one in done
        ],
    }


def withdrawn_as_json(taken: Sequence[LakeCount]) -> dict[str, Any]:
    """The one object of `--json`."""
    return {"success": True, "withdrawn": [_as_json(one) for one in taken]}


def show_counted(done: Sequence[Counted]) -> None:
    """The same for a person."""
    for one in done:
        of_what = f"{one.month.key} of {one.usage}"
        if one.count is None:
            out.print(f"Not counted: {of_what}: {one.reason}.", markup=False, soft_wrap=True)
            continue
        count = one.count
        verb = "Counted" if one.is_new else "Not changed since it was counted:"
        out.print(
            f"{verb} {of_what}: {count.key_count:,} keys, {count.event_count:,} events, {count.usage_count:,f} units; "
            f"{count.dedupe_count:,} duplicates and {count.invalid_count:,} invalid events are not in it "
            f"({len(count.source['files']):,} files{_of_table(count)}, {count.engine}).",
            markup=False,
            soft_wrap=True,
        )
    unplaced = max((one.in_no_month for one in done), default=0)
    if unplaced:
        out.print(
            f"{unplaced:,} rows of the lake are in no month of any usage, since gateway_name, usage_type or "
            "period_start is null.",
            soft_wrap=True,
        )
    sealed = [one.month.key for one in done if one.is_new and one.is_sealed]
    if sealed:
        out.print(
            f"Sealed before, and the seal still counts: {', '.join(dict.fromkeys(sealed))}. recon corrections --period "
            f"{sealed[0]} compares it with this count.",
            soft_wrap=True,
        )
    if any(one.is_new and not one.is_sealed for one in done):
        out.print("No counter was changed: the next run compares with it, or recon reconcile --period.", soft_wrap=True)


def show_withdrawn(taken: Sequence[LakeCount]) -> None:
    """The same for a person."""
    for one in taken:
        out.print(f"Withdrawn: the count of {one.partition} of {one.usage}.", markup=False, soft_wrap=True)
    out.print("Its counters follow the log from the next run on.", soft_wrap=True)


def _of_table(count: LakeCount) -> str:
    table = count.source.get("table")
    return f" of {TableVersion(**table)}" if table else ""


def _as_json(count: LakeCount) -> dict[str, Any]:
    return {**asdict(count), "usage": str(count.usage), "usage_count": str(count.usage_count)}
