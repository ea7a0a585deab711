-- Marks drifted keys of a run, in open months, as doubtful: counters that would be lowered, of which usage left the log since they last
-- matched, and counters that would be raised, of which credits did. What left is no reason to change a counter. Keys whose events changed
-- since the aggregates were last put in line are marked too: the next run knows what left of these. So are keys that earlier runs left
-- alone as doubtful, if their counters would be lowered now: the events that made the doubt may have left, or are named otherwise. At most
-- the difference is then in no stored sum, and nobody knows of how many events it is. Counters that would be raised are marked for that
-- only where a credit was among these events.
-- Invariant: runs at the snapshot of the comparison, after it. What was stored of a key and the log does not have has left it. Credits that
-- came also make a sum less than was stored, so usage and credits are held apart, as the comparison summed them. A note of this transaction
-- is of a wrong aggregate, and not of changed events.
-- Index: recon.counter_drift by run; for each key recon.open_key and recon.usage_aggregate by primary key, recon.invalidated_key by key.
-- Binds: doubts text[], reads_notes boolean, run_id text
with known as materialized (
    select
        found.run_id, found.ordinal, found.is_lowered,
        case when units.of_doubt > units.stored then 0 else coalesce(open.events_left, 0) end as events_left,
        greatest(units.stored, units.of_doubt) as units_left,
        units.stored >= units.of_doubt as is_known,
        coalesce(:reads_notes and note.is_noted, false)
        or coalesce(
            case
                when found.is_lowered
                    then found.visible_sum < stored.usage_count
                        and (
                            found.used_units < stored.usage_count - stored.credit_units
                            or (found.credit_units < stored.credit_units and found.credit_count <= stored.negative_count)
                        )
                else found.credit_units > stored.credit_units
            end,
            false
        ) as is_changing
    from (
        select *, coalesce(usage_count, 0) > visible_sum as is_lowered
        from recon.counter_drift
        where run_id = :run_id and outcome is null and seal_id is null
    ) as found
    left join lateral (
        select events_left, units_left, credits_left, doubts
        from recon.open_key
        where (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
            = (found.gateway_name, found.usage_type, found.gateway_customer_id, found.period_start, found.period_end)
        limit 1
    ) as open on true
    cross join lateral (
        select
            coalesce(case when found.is_lowered then open.units_left else open.credits_left end, 0) as stored,
            case
                when case when found.is_lowered then open.doubts && cast(:doubts as text[]) else 'shared identity, credits' = any(open.doubts) end
                    then abs(coalesce(found.usage_count, 0) - case when found.is_lowered then found.visible_sum else found.settled_sum end)
                else 0
            end as of_doubt
    ) as units
    left join lateral (
        select usage_count, credit_units, negative_count
        from recon.usage_aggregate
        where (period_start, gateway_customer_id, period_end, usage_type, gateway_name)
            = (found.period_start, found.gateway_customer_id, found.period_end, found.usage_type, found.gateway_name)
        limit 1
    ) as stored on true
    left join lateral (
        select true as is_noted
        from recon.invalidated_key
        where (found.is_lowered or credits_left > 0)
            and hashtextextended(gateway_customer_id, 0) = hashtextextended(found.gateway_customer_id, 0)
            and (period_start, period_end, gateway_customer_id, usage_type, gateway_name)
            = (found.period_start, found.period_end, found.gateway_customer_id, found.usage_type, found.gateway_name)
            and xmin <> pg_current_xact_id()::xid
        limit 1
    ) as note on true
)
update recon.counter_drift as drift
set
    outcome = 'doubtful',
    events_left = case when not known.is_changing then known.events_left end,
    units_left = case when not known.is_changing then known.units_left end,
    error = case
        when known.is_changing then 'its events changed lately: the next run that has summed them decides'
        when not known.is_known
            then 'what made this counter doubtful is gone, since events left the log or RECON_EVENT_IDENTITY names them otherwise: it counts up to '
            || trim_scale(known.units_left) || ' units more'
        when not known.is_lowered then 'credits of ' || trim_scale(known.units_left) || ' units left the log since this counter last matched'
        when known.events_left > 0
            then known.events_left || ' events of ' || trim_scale(known.units_left) || ' units left the log since this counter last matched'
        else 'its events were lowered by ' || trim_scale(known.units_left) || ' units since this counter last matched'
    end
from known
-- The run comes from `known`: if it stood here, a planner that expects one key would read the whole run again for each key.
where (drift.run_id, drift.ordinal) = (known.run_id, known.ordinal)
    and (known.is_changing or known.units_left > 0)
