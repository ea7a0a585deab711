-- Part of recompute_noted_keys: the events below the horizon of customers with a noted key.
-- Index: billing_usage_events by gateway_customer_id.
(
    event.gateway_customer_id = any(array(select gateway_customer_id from noted))
    or (event.gateway_customer_id is null and exists (select from noted where gateway_customer_id = ''))
)
and (event.ingest_xid >= cast(:horizon as xid8)) is not true
