-- The quality of the log, of the keys of an extent that follow it, or of its events beyond the horizon: how many there are, how many count, how many are odd, and a
-- sample of events that a person should see: invalid ones (never summed) and ones outside their period (summed).
-- Invariant: what is not summed is counted here (invalid, duplicate), so that events_scanned = countable + invalid + duplicate. Values of
-- events are text as Postgres prints them, so every value can be shown. Events of sealed keys are left out, since they change no
-- counter.
-- Index: as {which_events} says; odd events are searched only if there are any.
-- Uses: countable_events = countable_events | countable_events_deduplicated, classified_events, which_events = in_extent_following_log | beyond_horizon
-- Binds: refuses_repetitions boolean, sample_rows bigint, since timestamptz
with event as not materialized (
    select event.*, event_timestamp < period_start or event_timestamp >= period_end as is_outside
    from ({classified_events}) as event
    where {which_events}
),
total as materialized (
    select
        count(*) as events_scanned,
        count(*) - count(*) filter (where is_valid) as invalid_count,
        case
            when :refuses_repetitions then 0
            else count(*) filter (where is_valid) - (
                select count(*)
                from ({countable_events}) as event
                where {which_events}
            )
        end as dedupe_count,
        count(*) filter (where is_outside) as outside_period_count,
        count(*) filter (where created_at > :since) as new_count
    from event
)
select
    total.*,
    odd.is_invalid,
    odd.id::text as event_id,
    odd.gateway_customer_id::text as gateway_customer_id,
    odd.request_id::text as request_id,
    odd.quantity::text as quantity,
    odd.period_start::text as period_start,
    odd.period_end::text as period_end,
    odd.event_timestamp::text as event_timestamp
from total
left join lateral (
    (
        select true as is_invalid, event.*
        from event
        where total.invalid_count > 0
            and is_valid is not true
        limit :sample_rows
    )
    union all
    (
        select false, event.*
        from event
        where total.outside_period_count > 0
            and is_outside
        limit :sample_rows
    )
) as odd on true
