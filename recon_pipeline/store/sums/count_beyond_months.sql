-- The number of events of a metered usage whose period begins outside the known months.
-- Invariant: infinity is later than every month, and a null period_start is a kind of its own.
-- Index: (usage_type, period_start, ...), or one pass over the log.
-- Binds: first_start timestamptz, gateway_name text, last_end timestamptz, usage_type text
select
    count(*) filter (where period_start < :first_start) as earlier_count,
    count(*) filter (where period_start >= :last_end) as later_count,
    count(*) filter (where period_start is null) as never_count
from billing_usage_events
where gateway_name = :gateway_name
    and usage_type = :usage_type
    and (period_start < :first_start or period_start >= :last_end or period_start is null)
