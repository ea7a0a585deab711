-- What the events of one key add up to, and what is odd about them.
-- Invariant: counted, invalid and repeated ones are all of them; an event arrived late if that was more than an hour after it happened.
-- Index: the events by gateway_customer_id.
-- Uses: countable_of_key, valid_event
-- Binds: customer text, gateway_name text, period_end timestamptz, period_start timestamptz, usage_type text
select
    counted.event_count,
    counted.usage_count,
    classified.invalid_count,
    classified.valid_count - counted.event_count as repeated_count,
    counted.late_count,
    counted.late_usage,
    classified.latest_by_seconds,
    classified.outside_period_count,
    classified.first_at,
    classified.last_at
from (
    select
        count(*) as event_count,
        coalesce(sum(quantity), 0)::numeric as usage_count,
        count(*) filter (where created_at - event_timestamp > interval '1 hour') as late_count,
        coalesce(sum(quantity) filter (where created_at - event_timestamp > interval '1 hour'), 0)::numeric as late_usage
    from ({countable_of_key}) as countable
) as counted
cross join (
    select
        count(*) filter (where not is_valid) as invalid_count,
        count(*) filter (where is_valid) as valid_count,
        extract(epoch from max(created_at - event_timestamp))::float8 as latest_by_seconds,
        count(*) filter (where event_timestamp < period_start or event_timestamp >= period_end) as outside_period_count,
        min(event_timestamp) as first_at,
        max(event_timestamp) as last_at
    from (
        select event.*, coalesce({valid_event}, false) as is_valid
        from billing_usage_events as event
        where event.gateway_customer_id = :customer
            and (event.gateway_name, event.usage_type, event.period_start, event.period_end)
            = (:gateway_name, :usage_type, :period_start, :period_end)
    ) as event
) as classified
