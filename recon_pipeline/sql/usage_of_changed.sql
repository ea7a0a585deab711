-- Part of other statements: usage of the keys in `changed` as rows to be summed, from the aggregates and what they do not hold yet.
-- Invariant: read at one snapshot, :horizon included; each visible event of such a key is in exactly one of the rows. Keys with an event beside the
-- aggregates are all in `changed`.
-- Index: the primary key of recon.usage_aggregate, for each changed key.
select changed.gateway_customer_id, changed.period_start, changed.period_end, aggregate.usage_count as visible, 0 as unsettled
from changed
-- Limit 1, of what there is once: keeps the planner from reading all of the table for a few keys.
cross join lateral (
    select usage_count, event_count
    from recon.usage_aggregate
    where gateway_name = :gateway_name
        and usage_type = :usage_type
        and gateway_customer_id = changed.gateway_customer_id
        and period_start = changed.period_start
        and period_end = changed.period_end
    limit 1
) as aggregate
where aggregate.event_count > 0
    and not exists (
        select
        from recon.invalidated_key as noted
        where noted.gateway_name = :gateway_name
            and noted.usage_type = :usage_type
            and noted.gateway_customer_id = changed.gateway_customer_id
            and noted.period_start = changed.period_start
            and noted.period_end = changed.period_end
    )
union all
{usage_beside_aggregates}
