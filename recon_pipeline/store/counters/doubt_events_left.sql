-- Marks the drifted keys of a run, in open months, whose counters would be lowered, and of which usage left the log since the counter last matched, or raised, and of which credits did: what left
-- is no reason to change a counter. So are keys marked whose events changed since the aggregates were last put in line: what left of these the next run knows.
-- And so are keys that runs left alone as doubtful until now, where no declaration has ended the doubt: the events that made it have left, and what is in no stored sum of them is
-- at most the difference, and how many events that was nobody knows. Of a counter that would be raised only where a credit was among them.
-- Invariant: runs at the snapshot of the comparison, after it. What was stored of a key and the log does not have is what left it. A sum that is less than was stored may be so by
-- credits that came, so usage and credits are held apart, as the comparison summed them. A note of this transaction is of an aggregate that is wrong, and no change of events.
-- Index: recon.counter_drift by run; for each key recon.open_key and recon.usage_aggregate by primary key, recon.invalidated_key by key.
-- Binds: doubts text[], doubts_of_credits text[], reads_notes boolean, run_id text
with known as materialized (
    select
        found.ordinal, found.is_lowered,
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
                when open.doubts && case when found.is_lowered then cast(:doubts as text[]) else cast(:doubts_of_credits as text[]) end
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
        when known.is_changing then 'its events changed while the run was under way: the next run decides'
        when not known.is_known
            then 'what made this counter doubtful is gone, since events left the log or RECON_EVENT_IDENTITY names them otherwise: it counts up to '
            || trim_scale(known.units_left) || ' units more'
        when not known.is_lowered then 'credits of ' || trim_scale(known.units_left) || ' units left the log since this counter last matched'
        when known.events_left > 0
            then known.events_left || ' events of ' || trim_scale(known.units_left) || ' units left the log since this counter last matched'
        else 'its events were lowered by ' || trim_scale(known.units_left) || ' units since this counter last matched'
    end
from known
where drift.run_id = :run_id
    and drift.ordinal = known.ordinal
    and (known.is_changing or known.units_left > 0)
