-- What the log says was sent of one customer's usage between some instants, which part its time into windows.
-- Invariant: read after the meter was asked, so that what the meter has is in the log. A window without events has no row.
-- Index: the events by gateway_customer_id.
-- Uses: sent_events
-- Binds: customer text, edges timestamptz[], settled_before timestamptz
select
    width_bucket(sent_at, :edges) as number,
    sum(quantity)::numeric as units,
    coalesce(sum(quantity) filter (where complete_at < :settled_before), 0)::numeric as settled_units,
    count(*) as event_count
from ({sent_events}) as event
where gateway_customer_id = :customer
    and sent_at is not null
group by number
order by number
