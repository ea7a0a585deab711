-- Part of other statements: usage by key as rows to be summed, from the aggregates and what they do not hold yet.
-- Invariant: read at one snapshot, :horizon included; each visible event is in exactly one of the rows.
-- Index: none for the aggregates, which are read whole or by customer.
select gateway_customer_id, period_start, period_end, usage_count as visible, 0 as unsettled
from recon.usage_aggregate as aggregate
where gateway_name = :gateway_name
    and usage_type = :usage_type
    and period_start >= :start
    and period_start < :end
    and (:every_customer or gateway_customer_id = any(:customers))
    and event_count > 0
    and not exists (
        select
        from recon.invalidated_key as noted
        where noted.gateway_name = :gateway_name
            and noted.usage_type = :usage_type
            and noted.gateway_customer_id = aggregate.gateway_customer_id
            and noted.period_start = aggregate.period_start
            and noted.period_end = aggregate.period_end
    )
union all
{usage_beside_aggregates}
