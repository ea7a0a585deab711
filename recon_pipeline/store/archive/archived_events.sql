-- All events of a month of a metered usage, but for those of periods that its seal does not cover, each with all columns of the log and whether it counted.
-- Invariant: is_counted is true of exactly the events that sum_events adds up at the same snapshot. The module that sends it takes
-- the columns of the log from this statement, each as text or as a type that Arrow holds exactly.
-- Index: as {which_events} says.
-- Uses: marked_events = marked_events | marked_events_deduplicated, which_events = in_extent
-- Binds: covers_until timestamptz
select event.*
from ({marked_events}) as event
where {which_events}
    and (period_end > cast(:covers_until as timestamptz)) is not true
