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
        in_no_month: Events of the lake that no month has; known where it was counted now.
    """

    usage: MeteredUsage
    month: BillingMonth
    count: LakeCount | None = None
    is_new: bool = False
    reason: str = ""
    is_sealed: bool = False
    in_no_month: int = 0


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
    wanted = tuple(dict.fromkeys(months)) or months_between(first, current)
    with database.transaction() as connection:
        before = counts.newest_counts(connection)  # before the lake is listed: later counts may have seen more of it
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
        unplaced = opened.in_no_month()
        for one in asked:
            if not (one.reason or one.count):
                last = before.get((one.usage, one.month.key))
                counting = Counting(
                    one.usage,
                    one.month,
                    counted_by,
                    run_id,
                    opened.engine.label,
                    lake.complete_until.start,
                    found.source.as_json,
                    None if last is None else last.id,
                )
                try:
                    count = _count(database, found, opened, counting, last, is_sealed=one.is_sealed)
                    one = replace(one, count=count, is_new=True, in_no_month=unplaced)
                    on_counted(one)
                except _EmptyError as empty:
                    one = replace(one, reason=str(empty), in_no_month=unplaced)
            done.append(one)
    return tuple(done)


def withdraw(
    database: BillingDatabase, settings: Settings, month: BillingMonth, *, withdrawn_by: str, reason: str
) -> tuple[LakeCount, ...]:
    """Let a month follow the log again, from the next run on.

    Raises:
        ReconError: It does not follow the lake, or it is sealed.
    """
    with database.transaction(lock_timeout_ms=STATEMENT_TIMEOUT_MS) as connection:
        for usage in settings.scope:
            keeping.lock(connection, usage, month)
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
            reason = _follows_log(month, last)
        count = last if is_as_it_was and not reason else None
        found.append(Counted(usage, month, count, reason=reason, is_sealed=usage in sealed))
    return found


def _follows_log(month: BillingMonth, last: LakeCount | None) -> str:
    """Why an open month of which the log has events is not counted, and what its counters are compared with."""
    why = "it is not below RECON_LAKE_COMPLETE_UNTIL, and the log in Postgres has events of it"
    if last is None or last.kind != "counted":
        return f"{why}, which it follows"
    return (
        f"{why}. Its counters follow its earlier count until that is withdrawn: recon count-lake --period {month.key} "
        '--withdraw --reason "..." lets them follow the log'
    )


class _EmptyError(Exception):
    """The lake has no event of a month that had some: why its counters are not set to 0."""


def _count(
    database: BillingDatabase,
    found: FoundLake,
    lake: OpenLake,
    counting: Counting,
    last: LakeCount | None,
    *,
    is_sealed: bool,
) -> LakeCount:
    # An engine may be at work for an hour, which a connection that waits for it might not survive. What it has summed
    # is worth waiting for another count of the month, and for a storage that is asked for each of many files again.
    with (
        lake.sums(counting.usage, counting.month) as sums,
        database.transaction(lock_timeout_ms=STATEMENT_TIMEOUT_MS, idle_timeout_ms=STATEMENT_TIMEOUT_MS) as connection,
    ):
        count = keeping.keep(connection, counting, sums)
        found.require_unchanged()
        if count.event_count == 0 and not is_sealed:
            _require_none_before(connection, counting, last)  # the newest still: else it was not kept
    return count


def _require_none_before(connection: Connection, counting: Counting, before: LakeCount | None) -> None:
    """Refuse a count of no event where there were events: another lake, mapping or scope, or a retention job.

    Raises:
        _EmptyError: The earlier count that is in force, or the log, has some.
    """
    month = counting.month
    if before is not None and before.kind == "counted":
        if before.event_count > 0:
            raise _EmptyError(
                f"the lake has no event of it any more, and its earlier count of {before.event_count:,} events stays. "
                f"If that is right: recon count-lake --period {month.key} --withdraw "
                '--reason "...", then count it again'
            )
    elif counts.log_has_events(connection, counting.usage, month):
        raise _EmptyError("the lake has no event of it, and the log in Postgres has events of it, which it follows")
