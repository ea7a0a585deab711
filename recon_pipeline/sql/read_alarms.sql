-- What fails now.
-- Index: none, a handful of rows.
select subject, severity, partitions, details, failing_since, told_at
from recon.alert_state
order by failing_since, subject
