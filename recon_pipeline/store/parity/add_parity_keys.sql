-- Adds a key for each counter of an extent that has none yet, with events or without.
-- Index: the primary key of recon.parity_key; one pass over the counters.
-- Binds: began timestamptz, end timestamptz, gateway_name text, start timestamptz, usage_type text
insert into recon.parity_key (
    gateway_name, usage_type, gateway_customer_id, period_start, period_end, first_noted_at
)
select
    counter.gateway_name, counter.usage_type, counter.gateway_customer_id,
    counter.period_start, counter.period_end, :began
from billing_usage_counters as counter
where counter.gateway_name = :gateway_name
    and counter.usage_type = :usage_type
    and counter.period_start >= :start
    and counter.period_start < least(cast(:end as timestamptz), cast(:began as timestamptz))
    and counter.period_end > counter.period_start
    and recon.fits_index(counter.gateway_customer_id)
    and not exists (
        select
        from recon.parity_key as key
        where key.gateway_name = counter.gateway_name
            and key.usage_type = counter.usage_type
            and key.gateway_customer_id = counter.gateway_customer_id
            and key.period_start = counter.period_start
            and key.period_end = counter.period_end
    )
order by counter.gateway_customer_id, counter.period_start, counter.period_end
on conflict do nothing
