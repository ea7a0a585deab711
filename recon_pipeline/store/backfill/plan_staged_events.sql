-- Keeps what would become of each event of a whole source, nothing of which is inserted, to be counted in several ways; gone with the transaction.
-- Invariant: events are the same as in classify_staged_events; the first of several with one request id would be inserted, the others compared with it.
-- Index: the unique key on request ids, or an index on request_id; one look for each event, ordered as in insert_staged_events.
-- After: create_staged_events
create temporary table planned_event on commit drop as
select
    staged.gateway_name, staged.gateway_customer_id, staged.usage_type, staged.quantity,
    staged.period_start, staged.period_end,
    to_char(staged.period_start at time zone 'UTC', 'YYYY-MM') as partition,
    case
        when event.id = staged.id then 'inserted'
        when not event.differs then 'duplicate'
        else 'conflict'
    end as outcome
from (
    select *, first_value(ordinal) over (partition by gateway_name, request_id order by ordinal) as first_ordinal
    from pg_temp.staged_event
) as staged
cross join lateral (
    select
        event.id,
        (
            (event.gateway_customer_id, event.usage_type, event.quantity, event.period_start, event.period_end)
            is distinct from (staged.gateway_customer_id, staged.usage_type, staged.quantity, staged.period_start, staged.period_end)
        ) as differs
    from (
        (
            select false as is_staged, id, gateway_customer_id, usage_type, quantity::numeric, period_start, period_end
            from billing_usage_events as event
            where event.gateway_name = staged.gateway_name and event.request_id = staged.request_id
            order by (event.created_at, event.id)
            limit 1
        )
        union all
        select true, id, gateway_customer_id, usage_type, quantity, period_start, period_end
        from pg_temp.staged_event as earlier
        where earlier.ordinal = staged.first_ordinal
    ) as event
    order by event.is_staged
    limit 1
) as event
