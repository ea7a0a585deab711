-- Part of other statements: the events that count, where the log admits a request id more than once and rows carry transaction ids.
-- Invariant: of the valid events of one (gateway_name, request_id) only the first to arrive counts, wherever in the log the others are.
-- Arrival is the order of transactions, so what is decided below the horizon stays decided; rows from before there were transaction ids come
-- first; within a transaction created_at, id and physical place decide.
-- Index: one that begins with request_id or (gateway_name, request_id).
select event.*
from billing_usage_events as event
where event.quantity > 0
    and event.period_end > event.period_start
    and event.gateway_customer_id is not null
    and (not :quantity_is_numeric or event.quantity::text not in ('NaN', 'Infinity'))
    and not exists (
        select
        from billing_usage_events as earlier
        where earlier.gateway_name = event.gateway_name
            and earlier.request_id = event.request_id
            and earlier.quantity > 0
            and earlier.period_end > earlier.period_start
            and earlier.gateway_customer_id is not null
            and (not :quantity_is_numeric or earlier.quantity::text not in ('NaN', 'Infinity'))
            and (
                coalesce(earlier.ingest_xid, '0'), coalesce(earlier.created_at, '-infinity'),
                earlier.id, earlier.tableoid, earlier.ctid
            ) < (
                coalesce(event.ingest_xid, '0'), coalesce(event.created_at, '-infinity'),
                event.id, event.tableoid, event.ctid
            )
    )
