-- One row of the ledger as a person is told of it.
-- Index: the primary key of recon.counter_repair.
select gateway_customer_id, period_start::text as period_start, usage_delta::text as usage_delta
from recon.counter_repair
where id = :id
