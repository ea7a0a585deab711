-- Part of other statements: what became of each event of a chunk that was inserted just now.
-- Invariant: an event is the same if the same was billed: customer, usage type, quantity, period. Times and metadata are written
-- differently by every source.
-- Index: the unique key on request ids, or an index on request_id; one look for each event.
-- Uses: differing_from_staged, event_that_stays
select
    staged.ordinal, staged.gateway_name, staged.gateway_customer_id, staged.usage_type, staged.quantity,
    staged.period_start, staged.period_end, staged.refusal, event.stays,
    to_char(staged.period_start at time zone 'UTC', 'YYYY-MM') as partition,
    case
        when event.id = staged.id then 'inserted'
        when event.id is null then 'refused'
        when event.differing = '{}' then 'duplicate'
        else 'conflict'
    end as outcome,
    event.differing
from pg_temp.staged_event as staged
left join lateral (
    select event.id, {differing_from_staged} as differing, {event_that_stays} as stays
    from billing_usage_events as event
    where event.gateway_name = staged.gateway_name and event.request_id = staged.request_id
    order by event.id = staged.id desc, event.created_at, event.id
    limit 1
) as event on true
