"""Counters that would change because events left the log: they are left alone until a person approves.

Usage that left lowers no counter, and credits that left raise none.

A retention job, a compaction, a detached or truncated partition, an update that lowers: the log says less than it did,
and the customer has used what he has used. Invariant: what left is known from the stored sums (`put_sums` notes it in
`recon.open_key`), or from a doubt that ended without a word of the owner (`remembered_doubt`), and forgotten once the
counter matches. What an approval lets through was shown by an earlier run, key by key; once any run has repaired the
key, what was shown of it before is used up. Not known is what left before any run had
counted it.
"""

from collections.abc import Sequence
from decimal import Decimal

from sqlalchemy import Connection

from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.counters import remembered_doubt
from recon_pipeline.store.postgres.planning import look_up_by_index
from recon_pipeline.store.postgres.statements import labelled, statement
from recon_pipeline.store.sums.run import Reconciliation

# What runs let through in the last 24 hours without an approval, and what this run found, in events. How many events
# were lowered is not known of a key, so each unit counts as an event of its own: no event is lowered by less.
# Index: recon.reconciliation_run by start, recon.counter_repair by run, recon.counter_drift by run.
# Binds: run_id text
_EVENTS_LEFT_TODAY = labelled(
    "events_left_today",
    """
    select coalesce(sum(case when drift.events_left > 0 then drift.events_left else ceil(drift.units_left) end), 0)
    from recon.counter_drift as drift
    where drift.units_left is not null
        and (
            (drift.run_id = :run_id and drift.outcome = 'doubtful')
            or drift.id in (
                select repair.drift_id
                from recon.reconciliation_run as run
                join recon.counter_repair as repair using (run_id)
                where run.started_at > now() - interval '48 hours'
                    and run.approved_reason is null
                    and repair.repaired_at > now() - interval '24 hours'
            )
        )
        and drift.run_id in (
            select run_id from recon.reconciliation_run where started_at > now() - interval '48 hours'
        )
    """,
)
# Lets through what an earlier run has shown: keys of which no more has left the log than it showed, and whose counters
# would change in the same direction.
# Invariant: a key that any run repaired since then is no longer shown, so nothing is approved twice.
# Index: the primary key of recon.counter_drift, by run; recon.counter_repair by customer. A full join never loops
# through all of the one for each of the other.
# Binds: run_id text, shown_run_id text
_LET_SHOWN_THROUGH = labelled(
    "let_shown_events_left_through",
    """
    with approved as materialized (
        select now_left.run_id, now_left.ordinal
        from (
            select * from recon.counter_drift where run_id = :run_id and outcome = 'doubtful' and units_left is not null
        ) as now_left
        full join (
            select * from recon.counter_drift as found
            where run_id = :shown_run_id
                and coalesce(outcome, 'doubtful') = 'doubtful'
                and units_left is not null
                and not exists (
                    select
                    from recon.counter_repair as repair
                    where repair.gateway_customer_id = found.gateway_customer_id
                        and (repair.gateway_name, repair.usage_type, repair.period_start, repair.period_end)
                            = (found.gateway_name, found.usage_type, found.period_start, found.period_end)
                        and repair.repaired_at > (
                            select started_at from recon.reconciliation_run where run_id = :shown_run_id
                        )
                )
        ) as shown using (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
        -- A case, since a condition on one side would make it another join.
        where case
            when now_left.events_left <= shown.events_left
                and now_left.units_left <= shown.units_left
                and (coalesce(now_left.usage_count, 0) > now_left.visible_sum)
                = (coalesce(shown.usage_count, 0) > shown.visible_sum)
                then true
        end
    )
    update recon.counter_drift as drift
    set outcome = null, error = null
    from approved
    -- The run comes from `approved`, as in doubt_events_left.
    where (drift.run_id, drift.ordinal) = (approved.run_id, approved.ordinal)
    """,
)
# Lets the counters of a run change for all that left the log.
# Index: the primary key of recon.counter_drift, by run.
# Binds: run_id text
_LET_ALL_THROUGH = labelled(
    "let_all_events_left_through",
    """
    update recon.counter_drift
    set outcome = null, error = null
    where run_id = :run_id
        and outcome = 'doubtful'
        and units_left is not null
    """,
)
# Leaves counters alone of which the log has nothing, where it has nothing of the metered usage at all.
# Index: the primary key of recon.counter_drift, by run.
# Binds: run_id text, usages text[]
_MARK_INVISIBLE = labelled(
    "doubt_invisible_usages",
    """
    update recon.counter_drift
    set
        outcome = 'doubtful', events_left = 0, units_left = abs(usage_count),
        error = 'not one event of its metered usage is visible'
    where run_id = :run_id
        and outcome is null
        and seal_id is null
        and kind = 'orphan'
        and gateway_name || ':' || usage_type = any(:usages)
    """,
)
# The keys that a run let through although events of theirs left the log.
# Index: the primary key of recon.counter_drift, by run.
# Binds: run_id text
_COUNT_LET_THROUGH = labelled(
    "count_events_left_let_through",
    "select count(*) from recon.counter_drift where run_id = :run_id and outcome is null and units_left is not null",
)


def mark(connection: Connection, run: Reconciliation, *, reads_notes: bool) -> None:
    """Leave counters alone that would change because events left the log, but for what is let through in a day.

    Args:
        connection: In the transaction of the comparison, after every other rule that finds doubt: a key that is let
            through here is repaired.
        run: Whose drift it is.
        reads_notes: Whether notes of changed events are taken by runs, so that one that is there is new.
    """
    look_up_by_index(connection)
    asked = {"run_id": run.run_id, "reads_notes": reads_notes, "doubts": remembered_doubt.standing(run)}
    marked = connection.execute(statement("doubt_events_left"), asked)
    if marked.rowcount and run.max_events_left:
        today: Decimal = connection.execute(_EVENTS_LEFT_TODAY, {"run_id": run.run_id}).scalar_one()
        if today <= run.max_events_left:
            let_all_through(connection, run)


def mark_invisible(connection: Connection, run: Reconciliation, usages: Sequence[MeteredUsage]) -> None:
    """Leave the counters alone that have no events, of metered usages of which not one event is visible."""
    connection.execute(_MARK_INVISIBLE, {"run_id": run.run_id, "usages": list(map(str, usages))})


def let_all_through(connection: Connection, run: Reconciliation) -> None:
    """Let counters change for all that left the log."""
    connection.execute(_LET_ALL_THROUGH, {"run_id": run.run_id})


def count_let_through(connection: Connection, run_id: str) -> int:
    """How many keys a run let through although events of theirs left the log, of one that repaired nothing."""
    return connection.execute(_COUNT_LET_THROUGH, {"run_id": run_id}).scalar_one()


def let_shown_through(connection: Connection, run: Reconciliation, *, named: str) -> int:
    """Let counters change for what an earlier run over the same extent has shown; returns how many.

    Args:
        connection: In a transaction.
        run: That is approved; its record is open.
        named: The beginning of the id of the run that has shown it, or '' for the latest.
    """
    asked = {"run_id": run.run_id, "named": named, "is_blocked": False}
    shown = connection.execute(statement("shown_run"), asked).one_or_none()
    if shown is None:
        return 0
    return connection.execute(_LET_SHOWN_THROUGH, {"run_id": run.run_id, "shown_run_id": shown.run_id}).rowcount
