-- Forgets how far aggregates had come, where they are no longer made in increments.
-- Index: none; the tables are small.
with forgotten as (delete from recon.usage_month)
delete from recon.horizon
