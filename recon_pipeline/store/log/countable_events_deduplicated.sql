-- Part of other statements: the events that count, if the log admits two events of one identity (RECON_EVENT_IDENTITY).
-- Invariant: of the valid events that agree in the columns of the identity only the first to arrive counts, wherever in the log the others
-- are. gateway_name and request_id are always among these columns.
-- Index: one that begins with request_id or (gateway_name, request_id), where there is one; else a hash of the whole log.
-- Uses: classified_events, came_before = came_before_by_transaction | came_before_by_age
-- Binds: event_identity text[]
select event.*
from ({classified_events}) as event
where event.is_valid
    and not exists (
        select
        from ({classified_events}) as earlier
        where earlier.gateway_name = event.gateway_name
            and earlier.request_id = event.request_id
            -- A case, so that an earlier event is looked up by its request id alone, whatever the statistics of the other columns.
            and case
                when recon.are_one_event(
                    :event_identity,
                    earlier.usage_type = event.usage_type, earlier.gateway_customer_id = event.gateway_customer_id,
                    earlier.period_start = event.period_start, earlier.period_end = event.period_end,
                    earlier.event_timestamp = event.event_timestamp, earlier.created_at = event.created_at
                )
                    then true
            end
            and earlier.is_valid
            and {came_before}
    )
