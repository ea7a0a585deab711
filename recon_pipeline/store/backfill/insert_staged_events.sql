-- Compares the events of a chunk with the log, inserts those whose request ids are new, and counts both by billing month.
-- Invariant: a request id that is there stays as it is; of several in the chunk the first is inserted. Nothing is updated. What is counted
-- is certain; an event that is not counted here (it differs, came up in this very moment, or was not taken) is looked at afterwards.
-- Index: the unique key on request ids, or an index on request_id; one look for each event. The order is of a row, which no index on
-- created_at gives: with bad statistics that one would be read from its beginning for each event. Where no unique key says so, an event
-- that the application commits at this very moment is not seen.
-- After: create_staged_events
with looked_up as materialized (
    select staged.*, event.differs
    from pg_temp.staged_event as staged
    left join lateral (
        select
            (
                (event.gateway_customer_id, event.usage_type, event.quantity, event.period_start, event.period_end)
                is distinct from (staged.gateway_customer_id, staged.usage_type, staged.quantity, staged.period_start, staged.period_end)
            ) as differs
        from billing_usage_events as event
        where event.gateway_name = staged.gateway_name and event.request_id = staged.request_id
        order by (event.created_at, event.id)
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
        period_start, period_end, event_timestamp, metadata
    from looked_up
    where is_first and differs is null
    order by ordinal
    on conflict do nothing
    returning period_start
)
select outcome, to_char(period_start at time zone 'UTC', 'YYYY-MM') as partition, count(*) as events
from (
    select 'inserted' as outcome, period_start from inserted
    union all
    select 'duplicate', period_start from looked_up where not differs
) as certain
group by outcome, partition
