-- Part of other statements: the sums of some events, by key, if the log itself refuses a second event of one identity.
-- Invariant: every event is counted exactly once: as counted (event_count) or invalid. Those of negative quantity are also counted and
-- summed apart. An event whose key cannot be kept (no customer, a name that is too long, no end of the period) is invalid, and kept under
-- the empty name.
-- Index: as {which_events} says.
-- Uses: classified_events, which_events = *
select
    event.kept_name as gateway_customer_id,
    event.period_start,
    coalesce(event.period_end, event.period_start) as period_end,
    count(*) filter (where event.is_valid) as event_count,
    coalesce(sum(event.quantity) filter (where event.is_valid), 0)::numeric as usage_count,
    count(*) filter (where event.is_valid is not true) as invalid_count,
    count(*) filter (where event.is_valid and event.quantity < 0) as negative_count,
    coalesce(sum(event.quantity) filter (where event.is_valid and event.quantity < 0), 0)::numeric as credit_units,
    0::bigint as dedupe_count,
    count(*) filter (
        where event.event_timestamp < event.period_start or event.event_timestamp >= event.period_end
    ) as outside_period_count
from ({classified_events}) as event
where {which_events}
group by 1, 2, 3
