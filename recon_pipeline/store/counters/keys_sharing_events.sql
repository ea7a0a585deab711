-- The drifted keys of a run in open months, all or some, of which the log does not say for certain what their events are: one of the events has a twin. A
-- twin agrees with it in the columns of the identity (RECON_EVENT_IDENTITY), and belongs to another key, so that the usage may be counted
-- for the wrong one; or its quantity has another sign, so that it is no repetition. If the log declares a wider key, it says that the two
-- are different events: then a twin of the same key counts too.
-- Invariant: an event without a finite quantity never counts, and is no twin. For the keys of a chunk this runs after their write, so that
-- it sees every twin that was summed.
-- Index: billing_usage_events by gateway_customer_id, and with :by_index by request_id; the conditions in a case are looked up in a hash.
-- Binds: by_index boolean, declares_wider_key boolean, event_identity text[], every_key boolean, ordinals bigint[], run_id text
with drifted as materialized (
    select ordinal, gateway_name, usage_type, gateway_customer_id, period_start, period_end
    from recon.counter_drift
    where run_id = :run_id
        and seal_id is null
        and coalesce(outcome, 'deferred') in ('deferred', 'doubtful', 'held')
        and (:every_key or ordinal = any(:ordinals))
),
of_keys as materialized (
    select *, tableoid as event_table, ctid as event_place
    from billing_usage_events as event
    where (:every_key or event.gateway_customer_id = any(array(select distinct gateway_customer_id from drifted)))
        and case
            when event.quantity > -1e1000
                and event.quantity < 1e1000
                and (
                    event.gateway_name, event.usage_type, event.gateway_customer_id, event.period_start, event.period_end
                ) in (select gateway_name, usage_type, gateway_customer_id, period_start, period_end from drifted)
                then true
        end
),
-- Those events and their twins, in one pass or by index, never in a nested loop.
of_requests as materialized (
    select *, tableoid as event_table, ctid as event_place
    from billing_usage_events as event
    where (
            not :by_index
            or (
                event.gateway_name = any(array(select distinct gateway_name from of_keys))
                and event.request_id = any(array(select distinct request_id from of_keys))
            )
        )
        and case
            when event.quantity > -1e1000
                and event.quantity < 1e1000
                and event.period_end > event.period_start
                and recon.fits_index(event.gateway_customer_id)
                and (event.gateway_name, event.request_id) in (select gateway_name, request_id from of_keys)
                then true
        end
),
sharing as materialized (
    select
        event.gateway_name, event.usage_type, event.gateway_customer_id, event.period_start, event.period_end,
        bool_or(least(event.quantity, twin.quantity) < 0) as is_of_credits
    from of_keys as event
    -- A full join never becomes a nested loop, whatever the planner expects.
    full join of_requests as twin on twin.gateway_name = event.gateway_name and twin.request_id = event.request_id
    -- A case, since a condition on one side would make it another join.
    where case
        when recon.are_one_event(
            :event_identity,
            twin.usage_type = event.usage_type, twin.gateway_customer_id = event.gateway_customer_id,
            twin.period_start = event.period_start, twin.period_end = event.period_end,
            twin.event_timestamp = event.event_timestamp, twin.created_at = event.created_at
        )
            and twin.id is not null
            then (twin.usage_type, twin.gateway_customer_id, twin.period_start, twin.period_end)
                is distinct from (event.usage_type, event.gateway_customer_id, event.period_start, event.period_end)
                or sign(twin.quantity) <> sign(event.quantity)
                or (:declares_wider_key and (twin.event_table, twin.event_place) <> (event.event_table, event.event_place))
    end
    group by event.gateway_name, event.usage_type, event.gateway_customer_id, event.period_start, event.period_end
)
select drifted.ordinal, sharing.is_of_credits
from drifted
full join sharing using (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
where sharing.is_of_credits is not null
