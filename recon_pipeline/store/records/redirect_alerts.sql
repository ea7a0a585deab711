-- Redirects undelivered messages from addresses that are no longer in RECON_ALERT_URLS to those that are.
-- Invariant: a corrected address gets what the wrong one did not; no address gets a message twice.
-- Index: recon.alert_delivery, those that are not delivered.
-- Binds: severities text[], target_names text[], targets text[]
with stranded as (
    delete from recon.alert_delivery
    where delivered_at is null
        and target <> all (cast(:targets as text[]))
    returning alert_id
)
insert into recon.alert_delivery (alert_id, target, target_name)
select distinct alert.id, addressed.target, addressed.target_name
from stranded
join recon.alert_outbox as alert on alert.id = stranded.alert_id
join unnest(cast(:targets as text[]), cast(:target_names as text[]), cast(:severities as text[]))
    as addressed (target, target_name, severity) using (severity)
on conflict do nothing
