-- Part of other statements: no event has the request id, where no unique key of the log says so.
-- Invariant: true of committed events; an event that the application commits at this very moment is not seen.
-- Index: request_id.
not exists (
    select from billing_usage_events as event
    where event.gateway_name = staged.gateway_name and event.request_id = staged.request_id
)
