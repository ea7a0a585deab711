-- Compares the events of a chunk with the log, inserts those that are new by its identity (RECON_EVENT_IDENTITY), and counts both by
-- billing month.
-- Invariant: an event that exists stays as it is; nothing is updated. Of several events of one identity in the chunk, the first is
-- inserted. What is counted is certain; another event (it differs, was committed at this moment, or was refused) is classified afterwards.
-- Where the time is part of the identity, an event differs if its time is that of another, cut or rounded to a millisecond or a second.
-- Index: the log's unique key, or an index on request_id; one lookup for each event. The order is of a row, so that no index on created_at
-- can give it: with bad statistics Postgres would read that index from its beginning for each event. Where no unique key refuses
-- repetitions, an event that the application commits at this moment is not seen.
-- Binds: event_identity text[]
-- After: create_staged_events
with looked_up as materialized (
    select staged.*, event.differs
    from pg_temp.staged_event as staged
    left join lateral (
        select
            (
                (event.gateway_customer_id, event.usage_type, event.quantity, event.period_start, event.period_end)
                is distinct from (staged.gateway_customer_id, staged.usage_type, staged.quantity, staged.period_start, staged.period_end)
            ) or coalesce(
                event.event_timestamp < staged.event_timestamp - interval '24 hours'
                or event.event_timestamp > staged.event_timestamp + interval '24 hours',
                false
            ) or ('event_timestamp' = any(:event_identity) and event.event_timestamp <> staged.event_timestamp) as differs
        from billing_usage_events as event
        where event.gateway_name = staged.gateway_name and event.request_id = staged.request_id
            and recon.are_one_event(
                :event_identity,
                event.usage_type = staged.usage_type, event.gateway_customer_id = staged.gateway_customer_id,
                event.period_start = staged.period_start, event.period_end = staged.period_end,
                recon.are_one_instant(event.event_timestamp, staged.event_timestamp), true
            )
        order by
            'event_timestamp' = any(:event_identity) and event.event_timestamp <> staged.event_timestamp,
            (event.created_at, event.id)
        limit 1
    ) as event on true
),
inserted as (
    insert into billing_usage_events (
        id, gateway_name, gateway_customer_id, usage_type, request_id, quantity,
        period_start, period_end, event_timestamp, metadata
    )
    select
        id, gateway_name, gateway_customer_id, usage_type, request_id, quantity,
        period_start, period_end, event_timestamp, cast(metadata as jsonb)
    from looked_up
    where is_first and differs is null
    order by ordinal
    on conflict do nothing
    returning period_start
)
select outcome, recon.billing_month(period_start) as partition, sum(events)::bigint as events
from (
    select 'inserted' as outcome, period_start, count(*) as events from inserted group by period_start
    union all
    select 'duplicate', period_start, count(*) from looked_up where not differs group by period_start
) as certain
group by outcome, partition
