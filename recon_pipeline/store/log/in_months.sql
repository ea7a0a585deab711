-- Part of other statements: the rows of one metered usage, in any table, whose period begins in the months of a run.
-- Index: of the log (usage_type, period_start, period_end) for a few months, a sequential scan for all of them; counters are few beside the
-- log.
-- Binds: end timestamptz, gateway_name text, start timestamptz, usage_type text
gateway_name = :gateway_name
and usage_type = :usage_type
and period_start >= :start
and period_start < :end
