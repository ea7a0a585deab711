-- Part of other statements: the events of one metered usage that count, each with the time at which it was sent to a meter, the time at which
-- it is complete there at the earliest, the column from which the former is taken, the provider's customer if it is another one, and whether
-- its time does not lie in the period of its label.
-- Invariant: an event without the time that is sent has none, and lies in no window. The customer stands in any column, or in a field of one.
-- Index: none of its own; the predicates of the statement around it reach the table. The condition on usage stands in a case: without
-- statistics, an index on it looks as good as one on customers, and has all of the log.
-- Uses: countable_events = countable_events | countable_events_deduplicated, sent_time
-- Binds: customer_path text[], gateway_name text, stamp_after_seconds double precision, sum_seconds double precision, usage_type text
select
    event.gateway_customer_id,
    event.request_id,
    event.period_start,
    event.period_end,
    event.quantity,
    stamp.stamped_from,
    case when :customer_path <> array['gateway_customer_id'] then to_jsonb(event) #>> :customer_path end as provider_customer,
    stamp.sent_at,
    greatest(
        event.created_at,
        case
            when cast(:sum_seconds as double precision) = 0 then stamp.sent_at
            else stamp.sent_at + make_interval(secs => :sum_seconds) - make_interval(secs => :stamp_after_seconds)
        end
    ) as complete_at,
    stamp.sent_at < event.period_start or stamp.sent_at >= event.period_end as is_elsewhere
from ({countable_events}) as event
cross join lateral ({sent_time}) as stamp
where case when event.gateway_name = :gateway_name and event.usage_type = :usage_type then true end
