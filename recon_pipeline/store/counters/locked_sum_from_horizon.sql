-- Part of repair_locked_counters: the event sum of one locked heavy key. Its events below a horizon are final and were summed before the
-- lock; the others are summed from the log's own rows. Also the sums of new events of keys that begin at nearly the same time, as in
-- locked_sums.
-- Invariant: the caller rolls back if events of the key were deleted or updated since the first sum.
-- Index: ingest_xid.
-- Uses: bounded_events
-- Binds: final_negatives bigint, final_settled numeric, final_visible numeric, horizon xid8
select
    gateway_name, usage_type, gateway_customer_id, period_start, period_end,
    coalesce(sum(visible), 0) as visible,
    coalesce(sum(settled), 0) as settled,
    sum(negative_count)::bigint as negative_count
from (
    select
        gateway_name, usage_type, gateway_customer_id, period_start, period_end,
        cast(:final_visible as numeric) as visible,
        cast(:final_settled as numeric) as settled,
        cast(:final_negatives as bigint) as negative_count
    from locked
    union all
    select
        countable.gateway_name, countable.usage_type, countable.gateway_customer_id, countable.period_start, countable.period_end,
        countable.most_units::numeric,
        countable.least_units::numeric,
        case when countable.quantity < 0 then 1 else 0 end
    from ({bounded_events}) as countable
    where countable.ingest_xid >= cast(:horizon as xid8)
        and case
            when countable.period_start >= (select min(period_start) - interval '1 second' from locked)
                and countable.period_start <= (select max(period_start) + interval '1 second' from locked)
                and (countable.gateway_name, countable.usage_type, countable.gateway_customer_id)
                in (select gateway_name, usage_type, gateway_customer_id from locked)
                then true
        end
) as part
group by gateway_name, usage_type, gateway_customer_id, period_start, period_end
