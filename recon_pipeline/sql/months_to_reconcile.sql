-- The billing months that a tick must look at: with a period that is open or ended lately, or with events that came lately.
-- Invariant: a month with anything to repair since the last finished run is among them; an idle old month costs nothing more.
-- Index: none: one pass over the log, as every statement of the full mode.
select distinct to_char(month at time zone 'UTC', 'YYYY-MM')
from (
    select date_trunc('month', period_start, 'UTC') as month
    from billing_usage_events
    where gateway_name = any(:gateway_names)
        and usage_type = any(:usage_types)
        and period_start >= :start
        and period_start < :end
        and (period_end > now() - make_interval(days => :recent_days) or created_at >= :since)
    union
    select date_trunc('month', period_start, 'UTC')
    from billing_usage_counters
    where gateway_name = any(:gateway_names)
        and usage_type = any(:usage_types)
        and period_start >= :start
        and period_start < :end
        and (period_end > now() - make_interval(days => :recent_days) or updated_at >= :since)
) as touched
order by 1
