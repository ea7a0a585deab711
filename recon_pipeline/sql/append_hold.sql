-- Lets repairs leave a customer alone.
-- Invariant: runs in the transaction that holds the lock of lock_control, after the one that it replaces was released.
-- Index: none.
insert into recon.hold (gateway_customer_id, partition, reason, held_by, until)
values (:gateway_customer_id, :partition, :reason, :held_by, :until)
