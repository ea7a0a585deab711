-- Remembers a version of the catalog in which the log lacks nothing for the incremental mode, so that no run has to look again.
-- Invariant: the caller holds this row, and has looked in this transaction.
-- Index: recon.event_log has one row.
update recon.event_log
set prepared_catalog = :catalog_version
