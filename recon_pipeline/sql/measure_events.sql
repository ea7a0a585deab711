-- The quality of the log within an extent: how much there is, how much of it counts, what is odd.
-- Invariant: what is not summed is counted here (invalid, duplicate), so that events_scanned = countable + invalid + duplicate.
-- Index: (usage_type, period_start, period_end) for a few months; a sequential scan for all of them.
select
    count(*) as events_scanned,
    count(*) - count(*) filter (where countable_if_first) as invalid_count,
    case
        when :request_id_is_unique then 0
        else count(*) filter (where countable_if_first) - (
            select count(*)
            from ({countable_events}) as countable
            where countable.gateway_name = :gateway_name
                and countable.usage_type = :usage_type
                and countable.period_start >= :start
                and countable.period_start < :end
                and (:every_customer or countable.gateway_customer_id = any(:customers))
        )
    end as dedupe_count,
    count(*) filter (
        where event_timestamp < period_start or event_timestamp >= period_end
    ) as outside_period_count,
    count(*) filter (where created_at > :since) as new_count
from (
    select
        event.*,
        coalesce(
            event.quantity > 0
            and event.period_end > event.period_start
            and event.gateway_customer_id is not null
            and (not :quantity_is_numeric or event.quantity::text not in ('NaN', 'Infinity')),
            false
        ) as countable_if_first
    from billing_usage_events as event
    where event.gateway_name = :gateway_name
        and event.usage_type = :usage_type
        and event.period_start >= :start
        and event.period_start < :end
        and (:every_customer or event.gateway_customer_id = any(:customers))
) as measured
