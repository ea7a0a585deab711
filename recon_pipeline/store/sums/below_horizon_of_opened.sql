-- Part of put_sums: the events below the horizon of the keys that this transaction has opened.
-- Index: billing_usage_events by gateway_customer_id. The condition on keys stands in a case, so that each event is looked up in a hash of
-- them.
-- Binds: gateway_name text, horizon xid8, usage_type text
event.gateway_customer_id = any(array(select distinct gateway_customer_id from opened))
and case
    when event.gateway_name = :gateway_name
        and event.usage_type = :usage_type
        and (event.gateway_customer_id, event.period_start, event.period_end)
        in (select gateway_customer_id, period_start, period_end from opened)
        then (event.ingest_xid >= cast(:horizon as xid8)) is not true
end
