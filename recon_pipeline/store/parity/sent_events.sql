-- Part of other statements: the events of one metered usage that count, each with the time at which it was sent to a meter as the application
-- says (RECON_STRIPE_METERS), the time at which it is complete there at the earliest, the column from which the former is taken, and the
-- provider's customer if it is another one.
-- Invariant: an event without the time that is sent has none, and lies in no window. The customer stands in any column, or in a field of one.
-- :sum_seconds is 0 where each event is sent; then its time is a column as it is, since a function for each of millions takes seconds. Which
-- column that is, is known before a plan is made, so that an index on it serves.
-- Index: none of its own; the predicates of the statement around it reach the table. The condition on usage stands in a case: without
-- statistics, an index on it looks as good as one on customers, and has all of the log.
-- Uses: countable_events = countable_events | countable_events_deduplicated
-- Binds: customer_path text[], gateway_name text, stamp_after_seconds double precision, sum_seconds double precision, time_column text
-- Binds: usage_type text
select
    event.gateway_customer_id,
    event.request_id,
    event.period_start,
    event.period_end,
    event.quantity,
    stamp.stamped_from,
    case when :customer_path <> array['gateway_customer_id'] then to_jsonb(event) #>> :customer_path end as provider_customer,
    case
        when cast(:sum_seconds as double precision) = 0 then stamp.stamped_from
        else
            date_bin(make_interval(secs => :sum_seconds), stamp.stamped_from, '2000-01-01 00:00:00+00')
            + make_interval(secs => :stamp_after_seconds)
    end as sent_at,
    greatest(
        event.created_at,
        case
            when cast(:sum_seconds as double precision) = 0 then stamp.stamped_from
            else
                date_bin(make_interval(secs => :sum_seconds), stamp.stamped_from, '2000-01-01 00:00:00+00')
                + make_interval(secs => :sum_seconds)
        end
    ) as complete_at
from ({countable_events}) as event
cross join lateral (
    select
        case :time_column
            when 'event_timestamp' then event.event_timestamp
            when 'created_at' then event.created_at
            else event.period_start
        end as stamped_from
) as stamp
where case when event.gateway_name = :gateway_name and event.usage_type = :usage_type then true end
