-- A subject that passes again.
-- Index: the primary key of recon.alert_state.
delete from recon.alert_state where subject = :subject
