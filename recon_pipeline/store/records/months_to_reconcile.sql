-- The billing months that a tick covers in full mode: with a period that is open or ended lately, touched since they were verified, or sealed,
-- reopened or counted in the lake since.
-- Invariant: a month with anything to repair since it was last verified is among them, and so is one that was never verified; an idle old
-- month is not. created_at and updated_at are starts of transactions: overlap_minutes finds those that committed late. The months are
-- written out in both branches, for all usages at once, so that each table is read once.
-- Index: none: one pass over the log, as every statement of the full mode.
-- Binds: end timestamptz, gateway_names text[], overlap_minutes integer, recent_days integer, start timestamptz
-- Binds: usage_types text[]
select touched.partition
from (
    select
        gateway_name, usage_type,
        recon.billing_month(month) as partition,
        max(last_end) as last_end,
        max(last_touch) as last_touch
    from (
        select
            gateway_name, usage_type,
            date_trunc('month', period_start, 'UTC') as month,
            max(period_end) as last_end,
            max(created_at) as last_touch
        from billing_usage_events
        where period_start >= :start and period_start < :end
        group by 1, 2, 3
        union all
        select gateway_name, usage_type, date_trunc('month', period_start, 'UTC'), max(period_end), max(updated_at)
        from billing_usage_counters
        where period_start >= :start and period_start < :end
        group by 1, 2, 3
    ) as month
    group by gateway_name, usage_type, month.month
) as touched
left join recon.usage_month as verified using (gateway_name, usage_type, partition)
left join recon.stand_in as stand_in using (gateway_name, usage_type, partition)
where (touched.gateway_name, touched.usage_type)
    in (select * from unnest(cast(:gateway_names as text[]), cast(:usage_types as text[])))
    and (
        touched.last_end > now() - make_interval(days => :recent_days)
        or verified.verified_at is null
        or verified.verified_seal_id is distinct from stand_in.seal_id
        or touched.last_touch >= verified.verified_at - make_interval(mins => :overlap_minutes)
        -- Keys that a run left open.
        or touched.partition in (select recon.billing_month(period_start) from recon.open_key)
    )
group by touched.partition
order by touched.partition
