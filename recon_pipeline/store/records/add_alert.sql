-- Stores a message and its targets.
-- Invariant: runs in the transaction that noticed the change, so that no message is lost and none is invented.
-- Binds: body text, failing text[], is_resolved boolean, resolved text[], severity text, target_names text[], targets text[], title text
with alert as (
    insert into recon.alert_outbox (severity, is_resolved, title, body, failing, resolved)
    values (
        :severity, :is_resolved, :title, :body, cast(:failing as text[]), cast(:resolved as text[])
    )
    returning id
)
insert into recon.alert_delivery (alert_id, target, target_name)
select alert.id, addressed.target, addressed.target_name
from alert
cross join unnest(cast(:targets as text[]), cast(:target_names as text[])) as addressed (target, target_name)
