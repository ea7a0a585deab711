-- Adds a key for each counter of an extent that has none yet, with events or without, unless its events are in the lake or an archive.
-- Index: the primary key of recon.parity_key; one pass over the counters.
-- Uses: in_months
-- Binds: absent_months timestamptz[], absent_until timestamptz[], began timestamptz
insert into recon.parity_key (
    gateway_name, usage_type, gateway_customer_id, period_start, period_end, first_noted_at
)
select gateway_name, usage_type, gateway_customer_id, period_start, period_end, :began
from billing_usage_counters as counter
where {in_months}
    and period_start < :began
    and period_end > period_start
    and recon.fits_index(gateway_customer_id)
    and recon.follows_log(period_start, period_end, cast(:absent_months as timestamptz[]), cast(:absent_until as timestamptz[]))
    and not exists (
        select
        from recon.parity_key as key
        where key.gateway_name = counter.gateway_name
            and key.usage_type = counter.usage_type
            and key.gateway_customer_id = counter.gateway_customer_id
            and key.period_start = counter.period_start
            and key.period_end = counter.period_end
    )
order by gateway_customer_id, period_start, period_end
on conflict do nothing
