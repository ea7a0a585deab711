"""Makes a sealed month an ordinary month again.

Invariant: what left the log while the month was sealed changed no counter, and lowers none now without an approval:
keys of which less is stored than was sealed become open keys that say how much left, as for any other month. An
archived month whose events the log itself does not have, whatever is stored of them, is not reopened. A month whose
sums were counted in the lake follows its newest count again.
"""

from dataclasses import replace

from sqlalchemy import Connection

from recon_pipeline.store.counters.corrections import keys_differing
from recon_pipeline.store.counters.seal_records import RecordedSeal, append, next_seal, read_seals
from recon_pipeline.store.counters.sealing import NotSealedError
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.log.sealed_months import read_sealed_months
from recon_pipeline.store.postgres.statements import labelled
from recon_pipeline.store.sums.horizons import await_sums
from recon_pipeline.store.sums.run import Reconciliation

# Opens the keys of a sealed month of which less is stored than was sealed: the rest left the log meanwhile. What leaves
# the log and was not summed yet, the next sums add.
# Invariant: the caller has locked the row of recon.event_log.
# Index: the primary keys of recon.sealed_counter and recon.usage_aggregate.
# Binds: gateway_name text, seal_id bigint, usage_type text
_NOTE_WHAT_LEFT = labelled(
    "note_left_since_seal",
    """
    insert into recon.open_key as open (
        gateway_name, usage_type, gateway_customer_id, period_start, period_end, reason,
        events_left, units_left, credits_left
    )
    select
        :gateway_name, :usage_type, gateway_customer_id, period_start, period_end, 'changed',
        events_left, units_left, credits_left
    from (
        select
            sealed.gateway_customer_id, sealed.period_start, sealed.period_end,
            greatest(sealed.event_count - coalesce(stored.event_count, 0), 0) as events_left,
            greatest(
                sealed.usage_count - sealed.credit_units - coalesce(stored.usage_count - stored.credit_units, 0), 0
            ) as units_left,
            greatest(coalesce(stored.credit_units, 0) - sealed.credit_units, 0) as credits_left
        from recon.sealed_counter as sealed
        left join recon.usage_aggregate as stored
            on (stored.period_start, stored.gateway_customer_id, stored.period_end)
            = (sealed.period_start, sealed.gateway_customer_id, sealed.period_end)
            and (stored.usage_type, stored.gateway_name) = (:usage_type, :gateway_name)
        where sealed.seal_id = :seal_id
    ) as key
    where units_left > 0 or credits_left > 0
    order by gateway_customer_id, period_start, period_end
    on conflict (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
    do update set
        noted_xid = excluded.noted_xid,
        events_left = greatest(open.events_left, excluded.events_left),
        units_left = greatest(open.units_left, excluded.units_left),
        credits_left = greatest(open.credits_left, excluded.credits_left)
    """,
)


def reopen(
    connection: Connection, run: Reconciliation, tables: BillingTables, *, reason: str, reopened_by: str
) -> tuple[RecordedSeal, ...]:
    """Make a month an ordinary one again, of each metered usage of which it is sealed.

    Args:
        connection: In a READ COMMITTED transaction that has locked the tables, which the caller commits; waits for a
            run that sums the log.
        run: Whose extent is the month.
        tables: How the tables are shaped.
        reason: Why.
        reopened_by: Who.

    Raises:
        NotSealedError: It is not sealed, or it was archived and its events have left the log.
        ReconError: Another session sealed or reopened a month at the same moment.
    """
    month = run.extent.first
    await_sums(connection)
    months = [one for one in read_sealed_months(connection) if one.month == month]
    sealed = {one.usage: one.seal_id for one in months}
    archived = {one.usage: one.archived_folder for one in months if one.archived_folder is not None}
    seals = {one.id: one for one in read_seals(connection)}
    done: list[RecordedSeal] = []
    for usage in run.extent.scope:
        if usage not in sealed:
            continue
        key = {"gateway_name": usage.gateway_name, "usage_type": usage.usage_type}
        if usage in archived:
            _require_in_log(connection, run, tables, seals[sealed[usage]], archived[usage])
        ended = seals[sealed[usage]].seal
        if ended.lake_source is None:
            connection.execute(_NOTE_WHAT_LEFT, {**key, "seal_id": sealed[usage]})
        mark = next_seal(connection)
        reopening = replace(
            ended,
            kind="reopened",
            acted_at=mark.acted_at,
            acted_by=reopened_by,
            reason=reason,
            run_id=None,
            seen=mark.seen,
        )
        done.append(append(connection, mark.id, reopening))
    if not done:
        raise NotSealedError(
            f"{month.key} is not sealed, so there is nothing to reopen.",
            fix="recon status says which months are sealed.",
        )
    return tuple(done)


def _require_in_log(
    connection: Connection, run: Reconciliation, tables: BillingTables, seal: RecordedSeal, folder: str
) -> None:
    """Refuse an archived month whose events have left: its counters would follow a log without them."""
    rows = keys_differing(connection, run, tables, seal, which_events="in_extent")
    keys = sum(row.events_now < row.sealed_events for row in rows)
    month = seal.seal.partition
    if keys:
        raise NotSealedError(
            f"{seal.of_what} was archived, and the log does not have its events any more: {keys:,} keys have "
            "less than was sealed.",
            fix=f"Let the log have them again: attach the partition, or insert the rows of {folder}; then recon "
            f"reconcile --period {month} --full, and reopen it. recon corrections --period {month} needs no "
            "reopening.",
        )
