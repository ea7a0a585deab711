"""Seals a closed month: its final sums are kept, and its counters follow them from then on.

Invariant: log and counters are read at one snapshot, which is taken after the locks, as for every decision. A month is
sealed only where every counter is what the log itself adds up to at that snapshot, to the unit, and no key is open; so
a sealed sum is what a counter held. Where the month follows the lake, its count takes the place of the log. All metered
usages of the scope are sealed in one transaction, or none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from recon_pipeline.core.errors import one_line
from recon_pipeline.core.periods import BillingMonth, instant_in_words
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.core.seals import Seal
from recon_pipeline.store.counters import lake_seals
from recon_pipeline.store.counters.seal_records import (
    NotSealedError,
    RecordedSeal,
    append,
    newest_of_month,
    next_seal,
    totals,
)
from recon_pipeline.store.counters.usage_snapshot import UsageSnapshot
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.postgres.planning import sum_by_hash
from recon_pipeline.store.postgres.statements import labelled, statement
from recon_pipeline.store.sums import horizons
from recon_pipeline.store.sums.run import Reconciliation

# The last end of a period that begins in a month, in the log or among the counters, and whether it, and the month, are
# still to come.
# Index: (usage_type, period_start, period_end) of the log; none of the counters.
# Uses: in_months.
# Binds: end timestamptz
_LAST_PERIOD_END = labelled(
    "last_period_end",
    """
    select
        max(period_end)::text as last_end, max(period_end) > now() as is_open,
        cast(:end as timestamptz) > now() as is_now
    from (
        select period_end from billing_usage_events where {in_months}
        union all
        select period_end from billing_usage_counters where {in_months}
    ) as period
    """,
)
# The open keys of a month by their reason, each with one of its customers.
# Index: none; recon.open_key is small.
# Uses: in_months.
_OPEN_KEYS = labelled(
    "open_keys_of_month",
    """
    select reason, count(*) as keys, min(gateway_customer_id) as customer
    from recon.open_key
    where {in_months}
    group by reason
    order by keys desc, reason
    """,
)
# In how many keys two seals differ, and by how many units in all.
# Index: the primary key of recon.sealed_counter.
# Binds: new_id bigint, old_id bigint
_COMPARE_SEALS = labelled(
    "compare_seals",
    """
    select
        count(*) as keys,
        coalesce(sum(coalesce(new.usage_count, 0)::numeric - coalesce(old.usage_count, 0)), 0) as units
    from (select * from recon.sealed_counter where seal_id = :new_id) as new
    full join (
        select * from recon.sealed_counter where seal_id = :old_id
    ) as old using (gateway_customer_id, period_start, period_end)
    where (new.usage_count, new.event_checksum) is distinct from (old.usage_count, old.event_checksum)
    """,
)
# The seal that a reopening ended.
# Binds: reopening_id bigint
_SEAL_ENDED = labelled(
    "seal_ended",
    """
    select max(seal.id)
    from recon.month_seal as reopening
    join recon.month_seal as seal using (gateway_name, usage_type, partition)
    where reopening.id = :reopening_id and seal.kind = 'sealed' and seal.id < reopening.id
    """,
)


@dataclass(frozen=True)
class Sealed:
    """A month of a metered usage that was sealed.

    Attributes:
        record: The seal.
        since: What the seal before it was, if the month had been sealed before.
        keys_changed: Keys whose sum or events are not those of that seal.
        units_changed: By how many units.
    """

    record: RecordedSeal
    since: RecordedSeal | None = None
    keys_changed: int = 0
    units_changed: int = 0


def seal(
    connection: Connection,
    run: Reconciliation,
    tables: BillingTables,
    *,
    sealed_by: str,
    reason: str | None,
    dagster_run_id: str | None,
) -> tuple[Sealed, ...]:
    """Seal the one month of an extent, of each metered usage of it that is not sealed.

    Args:
        connection: In a REPEATABLE READ transaction that has locked the tables, which the caller commits.
        run: What is sealed: one month of all customers.
        tables: How the tables are shaped.
        sealed_by: Who.
        reason: Why, or None.
        dagster_run_id: The run that does it, or None.

    Raises:
        NotSealedError: It cannot be sealed; or all of it is sealed already.
        ReconError: Another session sealed at the same moment.
    """
    month = run.extent.first
    exactly = replace(run, settle_seconds=0)
    usages = [usage for usage in run.extent.scope if not tables.sealed_within(usage, run.extent)]
    if not usages:
        _refuse_sealed(connection, run.extent.scope, month)
    counts = lake_seals.count_followed(connection, tables, run)
    for usage in usages:
        of_what = "the lake" if usage in counts else "the log"
        _require_closed(connection, exactly, tables, usage, month, of_what=of_what)
    done: list[Sealed] = []
    for usage in usages:
        before = newest_of_month(connection, usage, month.key)
        mark = next_seal(connection)
        source = None
        if usage in counts:
            source = lake_seals.seal_sums(connection, counts[usage], seal_id=mark.id)
        else:
            _seal_log(connection, exactly, tables, usage, seal_id=mark.id)
        figures = vars(totals(connection, mark.id))
        written = Seal(
            "sealed", usage.gateway_name, usage.usage_type, month.key, mark.acted_at, sealed_by, reason,
            dagster_run_id, mark.seen, **figures, lake_source=source,
        )  # fmt: skip
        record = append(connection, mark.id, written)
        done.append(_since(connection, record, before))
    return tuple(done)


def _seal_log(
    connection: Connection, run: Reconciliation, tables: BillingTables, usage: MeteredUsage, *, seal_id: int
) -> None:
    sum_by_hash(connection)
    asked = run.parameters(usage, tables) | {
        "kept_as": seal_id,
        "compared_with": None,
        "covers_until": None,
        "with_checksums": True,
        "settled_below": None,
    }
    connection.execute(statement("sum_events", tables.parts, which_events="in_extent"), asked)


def _since(connection: Connection, record: RecordedSeal, before: RecordedSeal | None) -> Sealed:
    """What a seal says otherwise than the one before of the same month, which a reopening ended."""
    if before is None:
        return Sealed(record)
    old_id = connection.execute(_SEAL_ENDED, {"reopening_id": before.id}).scalar_one()
    row = connection.execute(_COMPARE_SEALS, {"new_id": record.id, "old_id": old_id}).one()
    return Sealed(record, before, row.keys, int(row.units))


def _refuse_sealed(connection: Connection, scope: Sequence[MeteredUsage], month: BillingMonth) -> None:
    newest = newest_of_month(connection, scope[0], month.key)
    by_whom = f", {newest.by_whom}" if newest else ""
    raise NotSealedError(
        f"{month.key} is sealed already{by_whom}.",
        fix=f"Nothing, if that is right: recon verify-seals checks it. To change it: "
        f'recon reopen --period {month.key} --reason "...".',
    )


def _require_closed(
    connection: Connection,
    run: Reconciliation,
    tables: BillingTables,
    usage: MeteredUsage,
    month: BillingMonth,
    *,
    of_what: str,
) -> None:
    """Refuse a month that is not over, not settled or not right.

    Raises:
        NotSealedError: With the reason.
    """
    what = f"{month.key} of {usage} cannot be sealed"
    again = f"then recon seal --period {month.key} again."
    last = connection.execute(_LAST_PERIOD_END, run.parameters(usage, tables)).one()
    if last.is_now:
        raise NotSealedError(
            f"{what}: the month is not over, and periods may still begin in it.",
            fix=f"Wait until {month.next().key}, and until its periods have ended; {again}",
        )
    if last.is_open:
        raise NotSealedError(
            f"{what}: a period that began in it ends on {instant_in_words(last.last_end)}.",
            fix=f"Wait until then; {again}"
            if last.last_end != "infinity"
            else "Give that period an end: recon doctor names such rows.",
        )
    open_keys = connection.execute(_OPEN_KEYS, run.parameters(usage, tables)).all()
    if open_keys:
        reasons = ", ".join(f"{row.keys:,} {row.reason}" for row in open_keys)
        raise NotSealedError(
            f"{what}: {sum(row.keys for row in open_keys):,} of its keys are open ({reasons}), for example of customer "
            f"{one_line(open_keys[0].customer)}.",
            fix=f"recon reconcile --period {month.key}, which says of each what to do; {again}",
        )
    snapshot = UsageSnapshot(connection, run, tables, usage, horizons.position(connection, tables))
    differing = snapshot.find_mismatches(None)
    if differing:
        first = differing[0]
        raise NotSealedError(
            f"{what}: {first['mismatch_count']:,} counters are not what {of_what} adds up to, for example of "
            f"customer {one_line(first['gateway_customer_id'])} ({first['usage_count'] or 'none'}, and "
            f"not {first['event_sum']}).",
            fix=f"recon reconcile --period {month.key} --full, {again}",
        )
