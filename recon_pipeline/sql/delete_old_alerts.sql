-- Messages that were delivered to everybody, or to nobody since no target was set, and are old.
-- Index: none; the table holds what was told in months.
delete from recon.alert_outbox as alert
where alert.noticed_at < clock_timestamp() - make_interval(days => :days)
    and not exists (
        select from recon.alert_delivery as delivery
        where delivery.alert_id = alert.id and delivery.delivered_at is null
    )
