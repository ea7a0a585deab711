-- Events of a run's drifted keys, each beside another event of its identity (RECON_EVENT_IDENTITY): of another key, of the same key where the log declares a wider one than
-- the identity, or of the same key with another quantity: of the opposite sign, or else the first to arrive counts.
-- Invariant: values are text as Postgres prints them, so that no value is too odd to be shown. At most :most keys are read, the doubtful ones first.
-- Index: as keys_sharing_events.
-- Binds: declares_wider_key boolean, doubts text[], event_identity text[], most bigint, run_id text, sample_rows bigint
with drifted as materialized (
    select gateway_name, usage_type, gateway_customer_id, period_start, period_end
    from recon.counter_drift
    where run_id = :run_id
    order by coalesce(outcome = 'doubtful' and doubts && cast(:doubts as text[]), false) desc, ordinal
    limit :most
),
pair as materialized (
    select
        event.request_id, event.id, event.gateway_customer_id, event.usage_type, event.period_start, event.period_end, event.quantity,
        event.event_timestamp, twin as other,
        case
            when (
                (twin.usage_type, twin.gateway_customer_id, twin.period_start, twin.period_end)
                is distinct from (event.usage_type, event.gateway_customer_id, event.period_start, event.period_end)
            )
                then 'another key'
            when :declares_wider_key then 'the same key'
            when sign(twin.quantity) * sign(event.quantity) < 0 then 'the same key, with the opposite sign'
            when sign(twin.quantity) <> sign(event.quantity) then 'the same key, one of the two of no units'
            else 'the same key, with another quantity'
        end as other_is_of
    from billing_usage_events as event
    join billing_usage_events as twin
        on twin.gateway_name = event.gateway_name
        and twin.request_id = event.request_id
        and recon.are_one_event(
            :event_identity,
            twin.usage_type = event.usage_type, twin.gateway_customer_id = event.gateway_customer_id,
            twin.period_start = event.period_start, twin.period_end = event.period_end,
            twin.event_timestamp = event.event_timestamp, twin.created_at = event.created_at
        )
    where event.gateway_customer_id = any(array(select distinct gateway_customer_id from drifted))
        and case
            when event.quantity > -1e1000
                and event.quantity < 1e1000
                and (
                    event.gateway_name, event.usage_type, event.gateway_customer_id, event.period_start, event.period_end
                ) in (select gateway_name, usage_type, gateway_customer_id, period_start, period_end from drifted)
                then true
        end
        and twin.quantity > -1e1000
        and twin.quantity < 1e1000
        and twin.period_end > twin.period_start
        and recon.fits_index(twin.gateway_customer_id)
        and (twin.tableoid, twin.ctid) <> (event.tableoid, event.ctid)
)
select
    left(request_id, 200) as request_id,
    other_is_of,
    gateway_customer_id,
    usage_type,
    period_start::text as period_start,
    quantity::text as quantity,
    event_timestamp::text as event_timestamp,
    left((other).gateway_customer_id, 200) as other_customer,
    (other).usage_type as other_usage_type,
    (other).period_start::text as other_period_start,
    (other).quantity::text as other_quantity,
    (other).event_timestamp::text as other_event_timestamp
from pair
where other_is_of <> 'the same key, with another quantity' or (quantity <> (other).quantity and id < (other).id)
order by other_is_of, request_id, gateway_customer_id, usage_type, period_start
limit :sample_rows
