-- Part of other statements: the events that count, where the log admits a request id more than once.
-- Invariant: of the valid events of one (gateway_name, request_id) only the first to arrive counts, wherever in the log the others are.
-- Index: one that begins with request_id or (gateway_name, request_id), where there is one; else a hash of the whole log.
-- Uses: valid_event, came_before = came_before_by_transaction | came_before_by_age
-- Binds: quantity_is_numeric boolean
select event.*, event.xmin as event_xid
from billing_usage_events as event
where {valid_event}
    and not exists (
        select
        from billing_usage_events as earlier
        where earlier.gateway_name = event.gateway_name
            and earlier.request_id = event.request_id
            and earlier.quantity > 0
            and earlier.period_end > earlier.period_start
            and octet_length(earlier.gateway_customer_id) <= 1000
            and (not :quantity_is_numeric or earlier.quantity < 1e1000)
            and {came_before}
    )
