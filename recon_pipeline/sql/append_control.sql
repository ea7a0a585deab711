-- Writes down that repairs are paused, or that they go on.
-- Invariant: runs in the transaction that holds the lock of lock_control; nothing is ever changed or deleted.
-- Index: none.
insert into recon.control (action, reason, acted_by, until)
values (:action, :reason, :acted_by, :until)
