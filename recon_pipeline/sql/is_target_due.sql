-- Whether a target is to be told something now: it has not got a message that is new, or whose wait is over.
-- Index: recon.alert_delivery, those that are not delivered.
select exists (
    select from recon.alert_delivery
    where target = :target
        and delivered_at is null
        and next_attempt_at <= clock_timestamp()
)
