-- Adds what some events add up to, to recon.usage_aggregate and to the totals of their months.
-- Invariant: the caller holds the row of recon.horizon, and moves it in the same transaction: each event is added exactly once.
-- Keys are written in order of the primary key.
-- Index: as {which_events} says; the primary keys of recon.usage_aggregate and recon.usage_month.
with figure as materialized (
    {key_figures}
),
of_built_month as (
    select figure.*, to_char(figure.period_start at time zone 'UTC', 'YYYY-MM') as partition
    from figure
    where to_char(figure.period_start at time zone 'UTC', 'YYYY-MM') = any(:partitions)
),
written as (
    insert into recon.usage_aggregate as aggregate (
        gateway_name, usage_type, gateway_customer_id, period_start, period_end,
        event_count, usage_count, invalid_count, dedupe_count, outside_period_count
    )
    select
        :gateway_name, :usage_type, gateway_customer_id, period_start, period_end,
        event_count, usage_count, invalid_count, dedupe_count, outside_period_count
    from of_built_month
    order by gateway_customer_id, period_start, period_end
    on conflict (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
    do update set
        event_count = aggregate.event_count + excluded.event_count,
        usage_count = aggregate.usage_count + excluded.usage_count,
        invalid_count = aggregate.invalid_count + excluded.invalid_count,
        dedupe_count = aggregate.dedupe_count + excluded.dedupe_count,
        outside_period_count = aggregate.outside_period_count + excluded.outside_period_count
    returning period_start, xmax = 0 as is_new, usage_count
),
of_month as (
    select
        partition,
        max(period_end) as last_period_end,
        sum(event_count)::bigint as event_count,
        sum(invalid_count)::bigint as invalid_count,
        sum(dedupe_count)::bigint as dedupe_count,
        sum(outside_period_count)::bigint as outside_period_count
    from of_built_month
    group by partition
),
new_keys as (
    select to_char(period_start at time zone 'UTC', 'YYYY-MM') as partition, count(*) as key_count
    from written
    where is_new
    group by 1
),
oversized as (
    select distinct to_char(period_start at time zone 'UTC', 'YYYY-MM') as partition, true as is_oversized
    from written
    where usage_count > 9223372036854775807 or usage_count <> trunc(usage_count)
)
update recon.usage_month as month
set
    last_period_end = greatest(month.last_period_end, of_month.last_period_end),
    key_count = month.key_count + coalesce(new_keys.key_count, 0),
    event_count = month.event_count + of_month.event_count,
    invalid_count = month.invalid_count + of_month.invalid_count,
    dedupe_count = month.dedupe_count + of_month.dedupe_count,
    outside_period_count = month.outside_period_count + of_month.outside_period_count,
    has_oversized = month.has_oversized or coalesce(oversized.is_oversized, false)
from of_month
left join new_keys using (partition)
left join oversized using (partition)
where month.gateway_name = :gateway_name
    and month.usage_type = :usage_type
    and month.partition = of_month.partition
returning month.partition, of_month.event_count + of_month.invalid_count + of_month.dedupe_count as events
