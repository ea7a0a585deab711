-- Part of other statements: the events that count, where the log admits a request id more than once.
-- Invariant: of the valid events of one (gateway_name, request_id) only the first to arrive counts, wherever in the log the others are.
-- Index: one that begins with request_id or (gateway_name, request_id), where there is one; else a hash of the whole log.
-- Uses: classified_events, came_before = came_before_by_transaction | came_before_by_age
select event.*
from ({classified_events}) as event
where event.is_valid
    and not exists (
        select
        from ({classified_events}) as earlier
        where earlier.gateway_name = event.gateway_name
            and earlier.request_id = event.request_id
            and earlier.is_valid
            and {came_before}
    )
