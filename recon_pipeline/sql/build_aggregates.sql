-- Stores what the events of a range of months add up to, where nothing is stored of them yet.
-- Invariant: the caller holds the row of recon.horizon, has forgotten these months, and totals them in the same transaction.
-- Keys are written in order of the primary key, which is the fastest way to fill it.
-- Index: none; nearly all of the log is read.
insert into recon.usage_aggregate (
    gateway_name, usage_type, gateway_customer_id, period_start, period_end,
    event_count, usage_count, invalid_count, dedupe_count, outside_period_count
)
select
    :gateway_name, :usage_type, gateway_customer_id, period_start, period_end,
    event_count, usage_count, invalid_count, dedupe_count, outside_period_count
from ({key_figures}) as figure
order by period_start, gateway_customer_id, period_end
