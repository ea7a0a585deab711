-- A message was not delivered: its target is left alone, each time for twice as long as before, up to a bound.
-- Invariant: all that the target has not got waits for the oldest, so that messages arrive in their order.
-- Index: recon.alert_delivery, those that are not delivered.
update recon.alert_delivery as waiting
set
    error = case when waiting.alert_id = :alert_id then :error else waiting.error end,
    claimed_until = case when waiting.alert_id = :alert_id then null else waiting.claimed_until end,
    next_attempt_at = clock_timestamp() + make_interval(
        secs => least(:first_seconds * 2 ^ least(tried.attempts - 1, 20), :longest_seconds) * (0.75 + random() / 4)
    )
from recon.alert_delivery as tried
where tried.alert_id = :alert_id
    and tried.target = :target
    and waiting.target = tried.target
    and waiting.delivered_at is null
