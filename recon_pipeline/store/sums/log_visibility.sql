-- Whether a metered usage has any visible event, and any counter other than 0, over all periods.
-- Invariant: an empty log beside counters that are not 0 is a lost log, and no reason to lower them.
-- Index: (usage_type, period_start, period_end) of the events; both stop at the first row.
-- Binds: gateway_name text, usage_type text
select
    exists (
        select from billing_usage_events
        where gateway_name = :gateway_name and usage_type = :usage_type
    ) as has_events,
    exists (
        select from billing_usage_counters
        where gateway_name = :gateway_name and usage_type = :usage_type and usage_count <> 0
    ) as has_usage
