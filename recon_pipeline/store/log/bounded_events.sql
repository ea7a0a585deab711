-- Part of other statements: the countable events, each with the most and the least units that its counter may have of it. They differ while
-- its transaction had not ended long enough ago (settled_below), since the application may not have counted it yet; with settle_seconds 0
-- they never do.
-- Index: none of its own, as in countable_events.
-- Uses: countable_events = countable_events | countable_events_deduplicated
-- Binds: settle_seconds integer, settled_below xid8
select
    countable.*,
    case
        when :settle_seconds = 0 or countable.quantity > 0 or recon.is_settled(countable.event_xid, cast(:settled_below as xid8)) then countable.quantity
    end as most_units,
    case
        when :settle_seconds = 0 or countable.quantity < 0 or recon.is_settled(countable.event_xid, cast(:settled_below as xid8)) then countable.quantity
    end as least_units
from ({countable_events}) as countable
