-- How many counters of some customers there are, in some billing months or in all of them.
-- Index: the unique key of the counters, where it begins with the customer; else none: this is asked once, by a person.
-- Binds: customers text[], every_month boolean, partitions text[]
select gateway_customer_id, count(*) as counters
from billing_usage_counters
where gateway_customer_id = any(:customers)
    and (
        :every_month
        or recon.billing_month(period_start) = any(:partitions)
    )
group by gateway_customer_id
