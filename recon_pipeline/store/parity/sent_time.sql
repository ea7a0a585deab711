-- Part of other statements: when an event is sent to a meter, as the application says (RECON_STRIPE_METERS), and from which of its times that
-- follows.
-- Invariant: an event without that time is sent at none. :sum_seconds is 0 where each event is sent; then its time is a column as it is, since
-- a function for each of millions takes seconds. Which column that is, is known before a plan is made, so that an index on it serves.
-- Index: none of its own.
-- Binds: stamp_after_seconds double precision, sum_seconds double precision, time_column text
select
    stamped_from,
    case
        when cast(:sum_seconds as double precision) = 0 then stamped_from
        else date_bin(make_interval(secs => :sum_seconds), stamped_from, '2000-01-01 00:00:00+00') + make_interval(secs => :stamp_after_seconds)
    end as sent_at
from (
    select
        case :time_column
            when 'event_timestamp' then event.event_timestamp
            when 'created_at' then event.created_at
            else event.period_start
        end as stamped_from
) as stamp
