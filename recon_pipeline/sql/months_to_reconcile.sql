-- The billing months that a tick must look at: with a period that is open or ended lately, or touched since they were verified.
-- Invariant: a month with anything to repair since it was last verified is among them, and so is one that never was;
-- an idle old month is not. created_at and updated_at are starts of transactions: overlap finds those that committed late.
-- Index: none: one pass over the log, as every statement of the full mode.
select touched.partition
from (
    select
        to_char(month at time zone 'UTC', 'YYYY-MM') as partition,
        max(last_end) as last_end,
        max(last_touch) as last_touch
    from (
        select
            date_trunc('month', period_start, 'UTC') as month,
            max(period_end) as last_end,
            max(created_at) as last_touch
        from billing_usage_events
        where gateway_name = any(:gateway_names)
            and usage_type = any(:usage_types)
            and period_start >= :start
            and period_start < :end
        group by 1
        union all
        select date_trunc('month', period_start, 'UTC'), max(period_end), max(updated_at)
        from billing_usage_counters
        where gateway_name = any(:gateway_names)
            and usage_type = any(:usage_types)
            and period_start >= :start
            and period_start < :end
        group by 1
    ) as month
    group by month.month
) as touched
left join recon.verified_month as verified using (partition)
where touched.last_end > now() - make_interval(days => :recent_days)
    or verified.partition is null
    or touched.last_touch >= verified.verified_at - make_interval(mins => :overlap_minutes)
    -- What a run left alone because of a hold.
    or touched.partition in (select to_char(period_start at time zone 'UTC', 'YYYY-MM') from recon.held_key)
order by touched.partition
