-- The outcomes that the events of a whole source would have, by billing month.
-- Index: none; the preview is read as a whole.
-- After: create_staged_events, declare_identity, preview_staged_events
select outcome, partition, count(*) as events, sum(quantity) as units, count(distinct gateway_customer_id) as customers
from pg_temp.preview_event
group by outcome, partition
