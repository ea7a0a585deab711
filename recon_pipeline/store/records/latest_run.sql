-- The latest run of some outcomes that covered every customer and reached the month that was current when it began.
-- Index: recon.reconciliation_run by start, backwards.
-- Binds: outcomes text[]
select
    run_id,
    finished_at,
    drift_count,
    mismatch_count,
    extract(epoch from finished_at - started_at)::float8 as duration_seconds,
    (select coalesce(sum((month ->> 'events')::bigint), 0)::bigint from jsonb_array_elements(events_left_the_log) as month) as events_left_the_log,
    (select coalesce(sum((month ->> 'units')::numeric), 0) from jsonb_array_elements(events_left_the_log) as month) as units_left_the_log
from recon.reconciliation_run
where outcome = any(:outcomes)
    and customers is null
    -- A tick that was decided just before midnight does not know the new month yet.
    and last_partition >= recon.billing_month(started_at - interval '10 minutes')
order by started_at desc
limit 1
