-- The oldest message that a target has not received, after those tried in this round. It is ours to send for a while.
-- Invariant: two sessions do not send the same message at once; if one of them dies in between, the message is sent again.
-- Index: recon.alert_delivery, those that are not delivered.
-- Binds: after bigint, lease_seconds double precision, target text
update recon.alert_delivery as delivery
set
    attempts = delivery.attempts + 1,
    claimed_until = clock_timestamp() + make_interval(secs => :lease_seconds)
from recon.alert_outbox as alert
where (delivery.alert_id, delivery.target) = (
        select oldest.alert_id, oldest.target
        from recon.alert_delivery as oldest
        where oldest.target = :target
            and oldest.delivered_at is null
            and oldest.alert_id > :after
            and (oldest.claimed_until is null or oldest.claimed_until <= clock_timestamp())
        order by oldest.alert_id
        limit 1
        for update skip locked
    )
    and alert.id = delivery.alert_id
returning delivery.alert_id, alert.severity, alert.is_resolved, alert.title, alert.body,
    alert.failing, alert.resolved
