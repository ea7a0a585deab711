-- Part of archived_events: if the log admits two events of one identity, the first to arrive counts.
-- Index: as {which_events} and countable_events_deduplicated say; the two sides are hashed.
-- Uses: classified_events, countable_events = countable_events_deduplicated, which_events = *
select event.*, counted.counted_place is not null as is_counted
from ({classified_events}) as event
left join (
    select event_table as counted_table, event_place as counted_place
    from ({countable_events}) as event
    where {which_events}
) as counted on counted.counted_table = event.event_table and counted.counted_place = event.event_place
