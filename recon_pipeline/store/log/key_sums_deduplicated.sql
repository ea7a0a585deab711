-- Part of other statements: the sums of some events, by key, if the log admits two events of one identity.
-- Invariant: every event is counted exactly once: as counted (event_count), invalid or repeated (dedupe_count). Countable ones of negative
-- quantity are also counted and summed apart. The order of arrival decides which of several events of one identity counts, so later events
-- never change it.
-- Index: as {which_events} says; for repetitions one that begins with request_id if events are few, a hash of the log for all of it.
-- Uses: countable_events = countable_events_deduplicated, classified_events, which_events = *
select
    key_sum.gateway_customer_id,
    key_sum.period_start,
    key_sum.period_end,
    sum(key_sum.event_count)::bigint as event_count,
    sum(key_sum.usage_count) as usage_count,
    sum(key_sum.invalid_count)::bigint as invalid_count,
    sum(key_sum.negative_count)::bigint as negative_count,
    sum(key_sum.credit_units) as credit_units,
    (sum(key_sum.valid_count) - sum(key_sum.event_count))::bigint as dedupe_count,
    sum(key_sum.outside_period_count)::bigint as outside_period_count
from (
    select
        event.gateway_customer_id, event.period_start, event.period_end,
        count(*) as event_count,
        sum(event.quantity)::numeric as usage_count,
        count(*) filter (where event.quantity < 0) as negative_count,
        coalesce(sum(event.quantity) filter (where event.quantity < 0), 0)::numeric as credit_units,
        0 as valid_count,
        0 as invalid_count,
        0 as outside_period_count
    from ({countable_events}) as event
    where {which_events}
    group by 1, 2, 3
    union all
    select
        event.kept_name, event.period_start, coalesce(event.period_end, event.period_start),
        0,
        0,
        0,
        0,
        count(*) filter (where event.is_valid),
        count(*) filter (where event.is_valid is not true),
        count(*) filter (
            where event.event_timestamp < event.period_start or event.event_timestamp >= event.period_end
        )
    from ({classified_events}) as event
    where {which_events}
    group by 1, 2, 3
) as key_sum
group by 1, 2, 3
