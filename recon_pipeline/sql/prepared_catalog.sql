-- The version of the catalog in which the log was last found to lack nothing for the incremental mode.
-- Index: recon.event_log has one row.
select prepared_catalog from recon.event_log
