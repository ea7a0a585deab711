-- Notes what the log says was sent for each key of an extent, and how many of its events have the label of another period than their time.
-- Invariant: a key is each counter of the extent, with events or without; its window ends at :until at the latest. What was compared stays.
-- A key that has no counter any more is not noted, so that :noted_at tells it from the others. Keys are written in order, so that two
-- comparisons cannot wait for each other.
-- Index: none: one pass over the log and one over the counters, joined by a hash of the customers.
-- Uses: sent_events
-- Binds: end timestamptz, noted_at timestamptz, settled_before timestamptz, start timestamptz, until timestamptz
-- Binds: gateway_name text, usage_type text
insert into recon.parity_key as known (
    gateway_name, usage_type, gateway_customer_id, period_start, period_end,
    provider_customer, provider_customer_count, log_units, settled_units, event_count, elsewhere_count, elsewhere_units,
    first_noted_at, noted_at
)
select
    :gateway_name, :usage_type, key.gateway_customer_id, key.period_start, key.period_end,
    coalesce(sent.provider_customer, known.provider_customer),
    coalesce(sent.provider_customer_count, 0), coalesce(sent.units, 0), coalesce(sent.settled_units, 0), coalesce(sent.event_count, 0),
    coalesce(sent.elsewhere_count, 0), coalesce(sent.elsewhere_units, 0),
    :noted_at, :noted_at
from billing_usage_counters as key
left join (
    select
        own.gateway_customer_id, own.period_start, own.period_end,
        max(event.provider_customer) as provider_customer,
        -- 0, 1, or 2 for several: a count of distinct ones would sort all events.
        case
            when min(event.provider_customer) < max(event.provider_customer) then 2
            else (max(event.provider_customer) is not null)::integer
        end as provider_customer_count,
        sum(event.quantity)::numeric as units,
        coalesce(sum(event.quantity) filter (where event.complete_at < :settled_before), 0)::numeric as settled_units,
        count(*) as event_count,
        count(*) filter (where event.period_start <> own.period_start or event.period_end <> own.period_end) as elsewhere_count,
        coalesce(
            sum(event.quantity) filter (where event.period_start <> own.period_start or event.period_end <> own.period_end), 0
        )::numeric as elsewhere_units
    from billing_usage_counters as own
    join ({sent_events}) as event
        on event.gateway_customer_id = own.gateway_customer_id
        and event.sent_at >= date_trunc('minute', own.period_start, 'UTC')
        and event.sent_at < least(date_trunc('minute', own.period_end, 'UTC'), :until)
    where own.gateway_name = :gateway_name
        and own.usage_type = :usage_type
        and own.period_start >= :start
        and own.period_start < :end
    group by own.gateway_customer_id, own.period_start, own.period_end
) as sent using (gateway_customer_id, period_start, period_end)
left join recon.parity_key as known
    on (known.gateway_name, known.usage_type, known.gateway_customer_id, known.period_start, known.period_end)
    = (key.gateway_name, key.usage_type, key.gateway_customer_id, key.period_start, key.period_end)
where key.gateway_name = :gateway_name
    and key.usage_type = :usage_type
    and key.period_start >= :start
    and key.period_start < :end
    and key.period_end > key.period_start
    and recon.fits_index(key.gateway_customer_id)
order by key.gateway_customer_id, key.period_start, key.period_end
on conflict (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
do update set
    provider_customer = excluded.provider_customer,
    provider_customer_count = excluded.provider_customer_count,
    log_units = excluded.log_units,
    settled_units = excluded.settled_units,
    event_count = excluded.event_count,
    elsewhere_count = excluded.elsewhere_count,
    elsewhere_units = excluded.elsewhere_units,
    noted_at = excluded.noted_at
