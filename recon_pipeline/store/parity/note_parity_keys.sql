-- Notes what the log says was sent for each key of an extent, and how many of its events have the label of another period than their time.
-- Invariant: a key is each counter of the extent, with events or without; its window ends at :until at the latest. What was compared stays.
-- A key that has no counter any more is not noted, so that :noted_at distinguishes it from the others. Keys are written in order, so that two
-- comparisons cannot wait for each other. Windows may overlap: the edges of a customer's windows part its time, each event is found once
-- among them, and a window is the sum of its parts, however many periods a customer has. What is older than all windows is not joined.
-- Index: none: one pass over the log and one over the counters, joined by a hash of the customers.
-- Uses: sent_events
-- Binds: end timestamptz, noted_at timestamptz, settled_before timestamptz, start timestamptz, until timestamptz
-- Binds: gateway_name text, usage_type text
with key as materialized (
    select
        gateway_customer_id, period_start, period_end,
        date_trunc('minute', period_start, 'UTC') as window_start,
        least(date_trunc('minute', period_end, 'UTC'), :until) as window_end
    from billing_usage_counters
    where gateway_name = :gateway_name
        and usage_type = :usage_type
        and period_start >= :start
        and period_start < :end
        and period_end > period_start
        and recon.fits_index(gateway_customer_id)
),

edge as materialized (
    select key.gateway_customer_id, array_agg(distinct instant order by instant) as instants
    from key
    cross join lateral unnest(array[key.window_start, key.window_end]) as instant
    group by key.gateway_customer_id
),

-- What lies between two edges, by label.
part as materialized (
    select
        event.gateway_customer_id, event.period_start, event.period_end,
        width_bucket(event.sent_at, edge.instants) as number,
        min(event.provider_customer) as least_customer,
        max(event.provider_customer) as greatest_customer,
        sum(event.quantity)::numeric as units,
        coalesce(sum(event.quantity) filter (where event.complete_at < :settled_before), 0)::numeric as settled_units,
        count(*) as event_count
    from ({sent_events}) as event
    join edge on edge.gateway_customer_id = event.gateway_customer_id
    where event.sent_at >= (select min(window_start) from key)
        and event.sent_at < (select max(window_end) from key)
        and event.sent_at >= edge.instants[1]
        and event.sent_at < edge.instants[cardinality(edge.instants)]
    group by event.gateway_customer_id, event.period_start, event.period_end, number
),

sent as materialized (
    select
        key.gateway_customer_id, key.period_start, key.period_end,
        max(part.greatest_customer) as provider_customer,
        -- 0, 1, or 2 for several: a count of distinct ones would sort all events.
        case
            when min(part.least_customer) < max(part.greatest_customer) then 2
            else (max(part.greatest_customer) is not null)::integer
        end as provider_customer_count,
        sum(part.units) as units,
        sum(part.settled_units) as settled_units,
        sum(part.event_count) as event_count,
        sum(part.event_count) filter (where (part.period_start, part.period_end) <> (key.period_start, key.period_end)) as elsewhere_count,
        sum(part.units) filter (where (part.period_start, part.period_end) <> (key.period_start, key.period_end)) as elsewhere_units
    from key
    join edge on edge.gateway_customer_id = key.gateway_customer_id
    join part
        on part.gateway_customer_id = key.gateway_customer_id
        and part.number >= array_position(edge.instants, key.window_start)
        and part.number < array_position(edge.instants, key.window_end)
    group by key.gateway_customer_id, key.period_start, key.period_end
)

insert into recon.parity_key as known (
    gateway_name, usage_type, gateway_customer_id, period_start, period_end,
    provider_customer, provider_customer_count, log_units, settled_units, event_count, elsewhere_count, elsewhere_units,
    first_noted_at, noted_at
)
select
    :gateway_name, :usage_type, key.gateway_customer_id, key.period_start, key.period_end,
    sent.provider_customer,
    coalesce(sent.provider_customer_count, 0), coalesce(sent.units, 0), coalesce(sent.settled_units, 0), coalesce(sent.event_count, 0),
    coalesce(sent.elsewhere_count, 0), coalesce(sent.elsewhere_units, 0),
    :noted_at, :noted_at
from key
left join sent
    on (sent.gateway_customer_id, sent.period_start, sent.period_end)
    = (key.gateway_customer_id, key.period_start, key.period_end)
order by key.gateway_customer_id, key.period_start, key.period_end
on conflict (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
do update set
    provider_customer = coalesce(excluded.provider_customer, known.provider_customer),
    provider_customer_count = excluded.provider_customer_count,
    log_units = excluded.log_units,
    settled_units = excluded.settled_units,
    event_count = excluded.event_count,
    elsewhere_count = excluded.elsewhere_count,
    elsewhere_units = excluded.elsewhere_units,
    noted_at = excluded.noted_at
