-- Part of other statements: the events of one metered usage that count, each with the time at which it was sent to a meter as the application
-- says (RECON_STRIPE_METERS), the time at which it is complete there at the earliest, and the provider's customer.
-- Invariant: an event without the time that is sent has none, and lies in no window. A column metadata that is not there has no customers.
-- Index: none of its own; the predicates of the statement around it reach the table.
-- Uses: countable_events = countable_events | countable_events_deduplicated
-- Binds: complete_after_seconds double precision, customer_name text, gateway_name text, stamp_after_seconds double precision
-- Binds: time_column text, time_unit text, usage_type text
select
    event.gateway_customer_id,
    event.request_id,
    event.period_start,
    event.period_end,
    event.quantity,
    case when :customer_name = '' then event.gateway_customer_id else to_jsonb(event) -> 'metadata' ->> :customer_name end
        as provider_customer,
    date_trunc(:time_unit, stamp.stamped_from, 'UTC') + make_interval(secs => :stamp_after_seconds) as sent_at,
    greatest(event.created_at, date_trunc(:time_unit, stamp.stamped_from, 'UTC') + make_interval(secs => :complete_after_seconds))
        as complete_at
from ({countable_events}) as event
cross join lateral (
    select
        case :time_column
            when 'event_timestamp' then event.event_timestamp
            when 'created_at' then event.created_at
            else event.period_start
        end as stamped_from
) as stamp
where event.gateway_name = :gateway_name
    and event.usage_type = :usage_type
