-- The holds that are in force, those that end first first.
-- Invariant: a hold ends by this server's clock, or when it is released.
-- Index: recon.hold, those that are not released; they are few.
select id, gateway_customer_id, partition, reason, held_by, held_at, until
from recon.hold
where released_at is null
    and until > clock_timestamp()
order by until, id
