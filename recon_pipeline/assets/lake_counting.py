"""Counts billing months in a lake: an engine sums them, Postgres keeps the sums; for the asset and the command alike.

Invariant: the transaction that keeps a month begins when the engine has summed it, and commits only if no file changed
until then. A month of which the log has the newest events is not counted: there the log is right, and repairs are safe.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.periods import BillingMonth, months_between, require_known
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.lake.counting import FoundLake, LakeSource, OpenLake, find_lake, open_lake
from recon_pipeline.lake.settings import LakeSettings
from recon_pipeline.settings import Settings, known_months
from recon_pipeline.store.lake import counts, keeping
from recon_pipeline.store.lake.counts import LakeCount
from recon_pipeline.store.lake.keeping import Counting
from recon_pipeline.store.log.sealed_months import read_sealed_months
from recon_pipeline.store.postgres.database import STATEMENT_TIMEOUT_MS, BillingDatabase


@dataclass(frozen=True)
class Counted:
    """What became of one month of a metered usage.

    Attributes:
        usage: The metered usage.
        month: The billing month.
        count: Its count; None if it was not counted.
        is_new: It was counted now; else nothing has changed since it was.
        reason: Why it was not counted.
        is_sealed: Its counters follow the seal of an earlier count.
    """

    usage: MeteredUsage
    month: BillingMonth
    count: LakeCount | None = None
    is_new: bool = False
    reason: str = ""
    is_sealed: bool = False


def count_months(
    database: BillingDatabase,
    settings: Settings,
    lake: LakeSettings,
    months: Sequence[BillingMonth],
    *,
    counted_by: str,
    run_id: str | None = None,
    on_counted: Callable[[Counted], object] = lambda _: None,
) -> tuple[Counted, ...]:
    """Count months of every metered usage, each in a transaction of its own.

    Args:
        database: The billing database.
        settings: With the scope.
        lake: Which lake.
        months: Which; none: all known ones whose count was not withdrawn.
        counted_by: Who.
        run_id: The run of Dagster's that does it, or None.
        on_counted: Called after each.

    Raises:
        ReconError: The lake cannot be read, or the database failed. Months that were counted before stay counted.
    """
    first, current = known_months()
    require_known(months, first=first, current=current)
    wanted = months or months_between(first, current)
    found = find_lake(lake, settings.event_identity)
    with database.transaction() as connection:
        to_do = [
            _looked_at(connection, settings, lake, found.source, month, is_asked_for=bool(months)) for month in wanted
        ]
    asked = [one for of_month in to_do for one in of_month]
    if all(one.reason or one.count for one in asked):
        return tuple(asked)
    done: list[Counted] = []
    with open_lake(lake, found, settings.event_identity) as opened:
        for one in asked:
            if not (one.reason or one.count):
                counting = Counting(
                    one.usage,
                    one.month,
                    counted_by,
                    run_id,
                    opened.engine.label,
                    lake.complete_until.start,
                    found.source.as_json,
                )
                one = replace(one, count=_count(database, found, opened, counting), is_new=True)
                on_counted(one)
            done.append(one)
    return tuple(done)


def withdraw(
    database: BillingDatabase, settings: Settings, month: BillingMonth, *, withdrawn_by: str, reason: str
) -> tuple[LakeCount, ...]:
    """Let a month follow the log again, from the next run on.

    Raises:
        ReconError: It does not follow the lake, or it is sealed.
    """
    with database.transaction() as connection:
        newest = counts.newest_counts(connection)
        found = [newest[usage, month.key] for usage in settings.scope if (usage, month.key) in newest]
        in_force = tuple(one for one in found if one.kind == "counted")
        if not in_force:
            raise ReconError(
                f"{month.key} does not follow the lake.",
                fix="Nothing: its counters follow the log or, if it is sealed, its seal. recon status shows which.",
            )
        sealed = {(one.usage, one.month) for one in read_sealed_months(connection)}
        if any((one.usage, month) in sealed for one in in_force):
            raise ReconError(
                f"{month.key} is sealed: its counters follow the seal, and corrections are made from its count.",
                fix=f'recon reopen --period {month.key} --reason "...", then withdraw the count.',
            )
        for one in in_force:
            counts.withdraw(connection, one, withdrawn_by=withdrawn_by, reason=reason)
    return in_force


def _looked_at(
    connection: Connection,
    settings: Settings,
    lake: LakeSettings,
    source: LakeSource,
    month: BillingMonth,
    *,
    is_asked_for: bool,
) -> list[Counted]:
    """Which metered usages of a month are to be counted: those without a count and a reason."""
    sealed = {one.usage: one for one in read_sealed_months(connection) if one.month == month}
    newest = counts.newest_counts(connection)
    found: list[Counted] = []
    for usage in settings.scope:
        last = newest.get((usage, month.key))
        is_as_it_was = (
            last is not None
            and last.kind == "counted"
            and (last.source, last.complete_until) == (source.as_json, lake.complete_until.start)
        )
        reason = ""
        if usage in sealed and not sealed[usage].is_of_lake:
            reason = "it is sealed"
        elif last is not None and last.kind == "withdrawn" and not is_asked_for:
            reason = "its count was withdrawn; --period counts it again"
        elif month >= lake.complete_until and counts.log_has_events(connection, usage, month):
            reason = (
                "it is not below RECON_LAKE_COMPLETE_UNTIL, and the log in Postgres has events of it, which it follows"
            )
        count = last if is_as_it_was and not reason else None
        found.append(Counted(usage, month, count, reason=reason, is_sealed=usage in sealed))
    return found


def _count(database: BillingDatabase, found: FoundLake, lake: OpenLake, counting: Counting) -> LakeCount:
    # An engine may be at work for an hour, which a connection that waits for it might not survive. What it has summed
    # is worth waiting for another count of the month.
    with (
        lake.sums(counting.usage, counting.month) as sums,
        database.transaction(lock_timeout_ms=STATEMENT_TIMEOUT_MS) as connection,
    ):
        count = keeping.keep(connection, counting, sums)
        found.require_unchanged()
    return count
