-- Those of some drifted keys, each a heavy key, that have a twin as in keys_sharing_events, where the event or its twin came since a
-- horizon. Older events were checked before the counter was locked.
-- Invariant: as of keys_sharing_events.
-- Index: ingest_xid, and billing_usage_events by request_id for each event since the horizon.
-- Binds: declares_wider_key boolean, event_identity text[], horizon xid8, ordinals bigint[], run_id text
select drifted.ordinal, sharing.is_of_credits
from recon.counter_drift as drifted
cross join lateral (
    select bool_or(least(recent.quantity, twin.quantity) < 0) as is_of_credits
    from billing_usage_events as recent
    join billing_usage_events as twin
        on twin.gateway_name = recent.gateway_name
        and twin.request_id = recent.request_id
        and recon.are_one_event(
            :event_identity,
            twin.usage_type = recent.usage_type, twin.gateway_customer_id = recent.gateway_customer_id,
            twin.period_start = recent.period_start, twin.period_end = recent.period_end,
            twin.event_timestamp = recent.event_timestamp, twin.created_at = recent.created_at
        )
    where recent.ingest_xid >= cast(:horizon as xid8)
        and recent.quantity > -1e1000
        and recent.quantity < 1e1000
        and recent.period_end > recent.period_start
        and recon.fits_index(recent.gateway_customer_id)
        and twin.quantity > -1e1000
        and twin.quantity < 1e1000
        and twin.period_end > twin.period_start
        and recon.fits_index(twin.gateway_customer_id)
        and (drifted.gateway_name, drifted.usage_type, drifted.gateway_customer_id, drifted.period_start, drifted.period_end) in (
            (recent.gateway_name, recent.usage_type, recent.gateway_customer_id, recent.period_start, recent.period_end),
            (twin.gateway_name, twin.usage_type, twin.gateway_customer_id, twin.period_start, twin.period_end)
        )
        and (
            (twin.usage_type, twin.gateway_customer_id, twin.period_start, twin.period_end)
            is distinct from (recent.usage_type, recent.gateway_customer_id, recent.period_start, recent.period_end)
            or sign(twin.quantity) <> sign(recent.quantity)
            or (:declares_wider_key and (twin.tableoid, twin.ctid) <> (recent.tableoid, recent.ctid))
        )
) as sharing
where drifted.run_id = :run_id
    and drifted.ordinal = any(:ordinals)
    and drifted.seal_id is null
    and coalesce(drifted.outcome, 'deferred') = 'deferred'
    and sharing.is_of_credits is not null
