-- One pass over every counter of an extent: how many are not 0, and which have a row that is younger than the last verification.
-- Invariant: a row version that the verifying snapshot did not see was written by a transaction at or above the lowest one that ran then.
-- Ages are compared within 2^31 transactions, which the caller ensures; a row that was frozen long ago may be compared without need. If
-- more than :most_keys are young, none is named, and every key has to be compared. One pass with one aggregate: two simpler passes take
-- half as long again.
-- Index: of the counters period_start, so that those of closed months are not read; else all are read.
-- Uses: in_months
-- Binds: counters_verified_below xid8, most_keys integer
select
    nonzero_count,
    case when coalesce(cardinality(young), 0) <= 3 * :most_keys then coalesce(young, '{}') end as young
from (
    select
        count(nullif(usage_count, 0)) as nonzero_count,
        array_agg(array[gateway_customer_id, period_start::text, period_end::text])
            filter (where age(xmin) <= (select age(cast(cast(:counters_verified_below as xid8) as xid)))) as young
    from billing_usage_counters
    where {in_months}
        and recon.fits_index(gateway_customer_id)
        and period_end is not null
) as counted
