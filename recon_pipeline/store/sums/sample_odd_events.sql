-- A few events that a person should look at: invalid ones (never summed) or ones outside their period (summed).
-- Invariant: values are text as Postgres prints them, so that no value is too odd to be shown.
-- Index: (usage_type, period_start, period_end); stops at the first rows.
-- Uses: classified_events
-- Binds: customers text[], end timestamptz, every_customer boolean, gateway_name text, invalid boolean
-- Binds: sample_rows bigint, start timestamptz, usage_type text
select
    event.id::text as event_id,
    event.gateway_customer_id::text as gateway_customer_id,
    event.request_id::text as request_id,
    event.quantity::text as quantity,
    event.period_start::text as period_start,
    event.period_end::text as period_end,
    event.event_timestamp::text as event_timestamp
from ({classified_events}) as event
where event.gateway_name = :gateway_name
    and event.usage_type = :usage_type
    and event.period_start >= :start
    and event.period_start < :end
    and (:every_customer or event.gateway_customer_id = any(:customers))
    and case
        when :invalid then event.is_valid is not true
        else event.event_timestamp < event.period_start or event.event_timestamp >= event.period_end
    end
limit :sample_rows
