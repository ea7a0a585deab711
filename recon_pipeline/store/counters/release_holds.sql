-- Ends the holds on a customer: those of one billing month, those of all months (every_partition false, partition null), or all of them.
-- Invariant: runs in the transaction that has run lock_control. Holds that were released or have ended stay as they are.
-- Index: recon.hold, those that are not released.
-- Binds: every_partition boolean, gateway_customer_id text, partition text, reason text, released_by text
update recon.hold
set released_at = clock_timestamp(), released_by = :released_by, release_reason = :reason
where gateway_customer_id = :gateway_customer_id
    and (:every_partition or partition is not distinct from :partition)
    and released_at is null
    and until > clock_timestamp()
returning id, gateway_customer_id, partition, reason, held_by, held_at, until
