-- Part of put_sums: the events below the horizon of the keys that this transaction has opened, if one of them has the empty name. Events
-- whose key cannot be kept are kept under that name.
-- Index: none, since no index finds these; such events are few, and changed once.
-- Binds: gateway_name text, horizon xid8, usage_type text
case
    when event.gateway_name = :gateway_name
        and event.usage_type = :usage_type
        and (event.kept_name, event.period_start, coalesce(event.period_end, event.period_start))
        in (select gateway_customer_id, period_start, period_end from opened)
        then (event.ingest_xid >= cast(:horizon as xid8)) is not true
end
