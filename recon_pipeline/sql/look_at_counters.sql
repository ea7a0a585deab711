-- One look at every counter of an extent: how many there are, how many are not 0, and which have a row that is too young to be known from the last
-- verification.
-- Invariant: a row version that the verifying snapshot did not see was written by a transaction at or above the lowest one that ran then. Ages
-- are compared within 2^31 transactions, which the caller makes sure of; a row that was frozen long ago may be looked at in vain. Where more are
-- young than :most_keys, none is named, and every key has to be compared.
-- Two passes, each of which does as little as can be for a row: one that counts, one that glances at the age alone.
-- Index: of the counters period_start, so that those of closed months are left alone; else they are read whole.
select
    counted.nonzero_count,
    young.young_count,
    case when young.young_count <= :most_keys then coalesce(young.customers, '{}') end as customers,
    case when young.young_count <= :most_keys then coalesce(young.period_starts, '{}') end as period_starts,
    case when young.young_count <= :most_keys then coalesce(young.period_ends, '{}') end as period_ends
from (
    select count(*) as nonzero_count
    from billing_usage_counters
    where period_start >= :start
        and period_start < :end
        and usage_count <> 0
        and gateway_name = :gateway_name
        and usage_type = :usage_type
        and octet_length(gateway_customer_id) <= 1000
        and period_end is not null
) as counted
cross join (
    select
        count(*) as young_count,
        array_agg(gateway_customer_id) as customers,
        array_agg(period_start::text) as period_starts,
        array_agg(period_end::text) as period_ends
    from (
        select gateway_name, usage_type, gateway_customer_id, period_start, period_end
        from billing_usage_counters
        -- A case, so that the age is looked at first, and the planner expects few.
        where case
                when age(xmin) <= (select age(cast(cast(:counters_verified_below as xid8) as xid))) then 1
            end = 1
            and period_start >= :start
            and period_start < :end
        offset 0 -- keeps the other conditions out of the scan
    ) as counter
    where gateway_name = :gateway_name
        and usage_type = :usage_type
        and octet_length(gateway_customer_id) <= 1000
        and period_end is not null
) as young
