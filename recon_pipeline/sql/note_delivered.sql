-- A message was delivered.
-- Index: the primary key of recon.alert_delivery.
update recon.alert_delivery
set delivered_at = clock_timestamp(), error = null
where alert_id = :alert_id and target = :target
