-- When the last run that came to its end had started.
-- Index: recon.reconciliation_run by start.
select max(started_at)
from recon.reconciliation_run
where outcome in ('clean', 'not_clean')
