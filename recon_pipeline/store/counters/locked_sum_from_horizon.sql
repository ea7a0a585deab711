-- Part of repair_locked_counters: the event sum of one locked key with very many events: of those below a horizon, which were final, summed before the lock, and the
-- others from the log's own rows.
-- Invariant: the caller takes all of it back if events of the key were deleted or updated since the first sum.
-- Index: ingest_xid.
-- Uses: countable_events = countable_events | countable_events_deduplicated, is_settled
-- Binds: final_settled numeric, final_visible numeric, horizon xid8, settle_seconds integer
select
    locked.gateway_name, locked.usage_type, locked.gateway_customer_id, locked.period_start, locked.period_end,
    cast(:final_visible as numeric) + recent.visible as visible,
    cast(:final_settled as numeric) + recent.settled as settled
from locked
cross join (
    select
        coalesce(sum(countable.quantity), 0)::numeric as visible,
        coalesce(sum(countable.quantity) filter (where :settle_seconds = 0 or {is_settled}), 0)::numeric as settled
    from ({countable_events}) as countable
    where countable.ingest_xid >= cast(:horizon as xid8)
        and case
            when (
                countable.gateway_name, countable.usage_type, countable.gateway_customer_id,
                countable.period_start, countable.period_end
            ) in (select gateway_name, usage_type, gateway_customer_id, period_start, period_end from locked)
                then true
        end
) as recent
