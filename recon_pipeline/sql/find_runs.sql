-- The runs whose id begins with what a person typed; runs that repaired and runs that took repairs back.
-- Invariant: at most a few rows, to tell one run from several.
-- Index: none; there is a row for each run, and this is asked once, by a person.
select run_id
from (select run_id from recon.reconciliation_run union select run_id from recon.undo) as run
where starts_with(run_id, :prefix)
order by run_id
limit 5
