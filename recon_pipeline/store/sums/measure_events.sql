-- The quality of the log within an extent: how much there is, how much of it counts, what is odd.
-- Invariant: what is not summed is counted here (invalid, duplicate), so that events_scanned = countable + invalid + duplicate.
-- Index: (usage_type, period_start, period_end) for a few months, a sequential scan for all of them.
-- Uses: countable_events = countable_events | countable_events_deduplicated, classified_events
-- Binds: customers text[], end timestamptz, every_customer boolean, gateway_name text, request_id_is_unique boolean
-- Binds: since timestamptz, start timestamptz, usage_type text
select
    count(*) as events_scanned,
    count(*) - count(*) filter (where is_valid) as invalid_count,
    case
        when :request_id_is_unique then 0
        else count(*) filter (where is_valid) - (
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
from ({classified_events}) as event
where gateway_name = :gateway_name
    and usage_type = :usage_type
    and period_start >= :start
    and period_start < :end
    and (:every_customer or gateway_customer_id = any(:customers))
