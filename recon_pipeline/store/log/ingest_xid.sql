-- Lets runs read what is new in the log instead of all of it (`recon init` does the same, and adapts it to your log).
-- Invariant: rewrites nothing; waits only briefly for each lock, and builds the index while the application writes. Run it as the owner of
-- the table, outside a transaction; if a lock is not free in time, run this part again.
-- A log that is partitioned, or without a unique key on request ids, needs more: recon init then says what, and recon doctor what is
-- missing. If the log is published by logical replication, each subscriber's table first needs the column (alter table … add column
-- ingest_xid xid8), or its subscription stops.
set lock_timeout = '2s';
alter table billing_usage_events add column if not exists ingest_xid xid8;
alter table billing_usage_events alter column ingest_xid set default pg_current_xact_id();
create or replace trigger recon_note_delete after delete on billing_usage_events
    referencing old table as old_rows for each statement execute function recon.note_changed_events();
create or replace trigger recon_note_update after update on billing_usage_events
    referencing old table as old_rows new table as new_rows
    for each statement execute function recon.note_changed_events();
create or replace trigger recon_note_truncate after truncate on billing_usage_events
    for each statement execute function recon.note_changed_events();
reset lock_timeout;
create index concurrently if not exists billing_usage_events_ingest_xid_idx on billing_usage_events (ingest_xid);
