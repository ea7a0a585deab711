-- The periods of those events that the log already has, by their request ids.
-- Invariant: of several events of one identity, whatever their periods, the first to arrive decides, as in insert_staged_events. An event
-- of another customer or usage type is another event. Where the period is part of the identity, so is an event of another period: then only
-- an event counts whose period contains the row's time, or whose time is the row's.
-- Index: the log's unique key, or an index on request_id; one lookup for each event, ordered as in insert_staged_events.
-- Binds: customers text[], event_identity text[], gateway_names text[], request_ids text[], timestamps timestamptz[]
-- Binds: usage_types text[]
select asked.ordinal, event.period_start, event.period_end
from unnest(
    cast(:gateway_names as text[]), cast(:customers as text[]), cast(:usage_types as text[]), cast(:request_ids as text[]),
    cast(:timestamps as timestamptz[])
) with ordinality as asked (gateway_name, gateway_customer_id, usage_type, request_id, event_timestamp, ordinal)
cross join lateral (
    select gateway_customer_id, usage_type, period_start, period_end
    from billing_usage_events as event
    cross join lateral (
        select
            recon.are_one_instant(event.event_timestamp, asked.event_timestamp) as its_time,
            event.period_start <= asked.event_timestamp and event.period_end > asked.event_timestamp as holds_it
    ) as can_be
    where event.gateway_name = asked.gateway_name and event.request_id = asked.request_id
        and recon.are_one_event(
            :event_identity,
            event.usage_type = asked.usage_type, event.gateway_customer_id = asked.gateway_customer_id,
            can_be.holds_it or can_be.its_time, can_be.holds_it or can_be.its_time, can_be.its_time, true
        )
    order by
        'event_timestamp' = any(:event_identity) and event.event_timestamp <> asked.event_timestamp,
        (event.created_at, event.id)
    limit 1
) as event
where event.gateway_customer_id = asked.gateway_customer_id
    and event.usage_type = asked.usage_type
    and event.period_start < event.period_end
    and event.period_start >= '0001-01-02Z'
    and event.period_end < '9999-01-01Z'
