-- The number of units by which the drifted counters of a run differed from the log.
-- Index: the primary key of recon.counter_drift, the rows of that run.
-- Binds: run_id text
select
    coalesce(sum(settled_sum - coalesce(usage_count, 0)) filter (where settled_sum > coalesce(usage_count, 0)), 0)
        as missed,
    coalesce(sum(coalesce(usage_count, 0) - settled_sum) filter (where settled_sum < coalesce(usage_count, 0)), 0)
        as excess
from recon.counter_drift
where run_id = :run_id
