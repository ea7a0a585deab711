-- How many counters some customers have, in some billing months or in all of them.
-- Index: the unique key of the counters, if it begins with the customer; else none: a person runs this once.
-- Binds: customers text[], every_month boolean, partitions text[]
select gateway_customer_id, count(*) as counters
from billing_usage_counters
where gateway_customer_id = any(:customers)
    and (
        :every_month
        or recon.billing_month(period_start) = any(:partitions)
    )
group by gateway_customer_id
