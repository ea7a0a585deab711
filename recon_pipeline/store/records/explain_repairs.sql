-- The changes to the counter of one key, the latest first.
-- Index: recon.counter_repair by customer.
-- Binds: customer text, gateway_name text, period_end timestamptz, period_start timestamptz, rows bigint
-- Binds: usage_type text
select repaired_at, kind, usage_count_before, usage_count_after, usage_delta, usage_limit, run_id
from recon.counter_repair
where gateway_customer_id = :customer
    and (gateway_name, usage_type, period_start, period_end)
    = (:gateway_name, :usage_type, :period_start, :period_end)
order by id desc
limit :rows
