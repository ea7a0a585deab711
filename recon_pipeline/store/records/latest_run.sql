-- The latest run that ended, covered every customer and reached the month that was current when it began. A run that was put off has no
-- figures.
-- Index: recon.reconciliation_run by start, backwards.
select
    run_id,
    drift_count,
    mismatch_count,
    extract(epoch from finished_at - started_at)::float8 as duration_seconds,
    (select coalesce(sum((month ->> 'events')::bigint), 0)::bigint from jsonb_array_elements(events_left_the_log) as month) as events_left_the_log,
    (select coalesce(sum((month ->> 'units')::numeric), 0) from jsonb_array_elements(events_left_the_log) as month) as units_left_the_log
from recon.reconciliation_run
where outcome not in ('running', 'put_off')
    and customers is null
    and last_partition >= recon.billing_month(started_at - interval '10 minutes')
order by started_at desc
limit 1
