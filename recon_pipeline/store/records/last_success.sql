-- When a run over every customer last verified the month that was current when it began, whatever it found.
-- Index: recon.reconciliation_run by start, backwards.
select finished_at
from recon.reconciliation_run
where outcome in ('clean', 'not_clean')
    and customers is null
    -- A tick that was decided just before midnight does not know the new month yet.
    and last_partition >= recon.billing_month(started_at - interval '10 minutes')
order by started_at desc
limit 1
