-- One look at every counter of an extent: how many there are, how many are not 0, and which have a row that is too young to be known from the last
-- verification.
-- Invariant: a row version that the verifying snapshot did not see was written by a transaction at or above the lowest one that ran then. Ages
-- are compared within 2^31 transactions, which the caller makes sure of; a row that was frozen long ago may be looked at in vain. Where more are
-- young than :most_keys, none is named, and every key has to be compared.
-- Index: of the counters period_start, so that those of closed months are left alone; else they are read whole.
select
    counter_count,
    nonzero_count,
    young_count,
    case when young_count <= :most_keys then coalesce(customers, '{}') end as customers,
    case when young_count <= :most_keys then coalesce(period_starts, '{}') end as period_starts,
    case when young_count <= :most_keys then coalesce(period_ends, '{}') end as period_ends
from (
    select
        count(*) as counter_count,
        count(*) filter (where usage_count <> 0) as nonzero_count,
        count(*) filter (where is_young) as young_count,
        array_agg(gateway_customer_id) filter (where is_young) as customers,
        array_agg(period_start::text) filter (where is_young) as period_starts,
        array_agg(period_end::text) filter (where is_young) as period_ends
    from (
        select
            gateway_customer_id, period_start, period_end, usage_count,
            age(xmin) <= (select age(cast(cast(:counters_verified_below as xid8) as xid))) as is_young
        from billing_usage_counters
        where gateway_name = :gateway_name
            and usage_type = :usage_type
            and period_start >= :start
            and period_start < :end
            and octet_length(gateway_customer_id) <= 1000
            and period_end is not null
        offset 0 -- so that an age is computed once
    ) as counter
) as glance
