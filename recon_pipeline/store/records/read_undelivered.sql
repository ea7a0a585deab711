-- The messages that are not delivered, by target, with the last error.
-- Index: recon.alert_delivery, those that are not delivered.
select
    target_name,
    count(*) as messages,
    min(alert.noticed_at) as oldest_noticed_at,
    (array_agg(delivery.error order by delivery.attempts desc))[1] as error
from recon.alert_delivery as delivery
join recon.alert_outbox as alert on alert.id = delivery.alert_id
where delivery.delivered_at is null
group by target_name
order by target_name
