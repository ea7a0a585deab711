-- Brings recon.usage_aggregate for an extent in line with the log, writing only keys that changed.
-- Invariant: sums and stored rows are of one snapshot; the caller holds the row of recon.event_log.
-- Index: the primary key of recon.usage_aggregate; the log as in measure_events.
with figure as materialized (
    {key_figures}
),
-- A full join never loops through all of the one for each of the other, whatever the statistics of a table that was just filled
-- make the planner expect.
changed as materialized (
    select
        gateway_customer_id, period_start, period_end,
        figure.event_count, figure.usage_count, figure.invalid_count, figure.dedupe_count, figure.outside_period_count
    from figure
    full join ({stored_figures}) as stored using (gateway_customer_id, period_start, period_end)
    where (
            stored.event_count, stored.usage_count, stored.invalid_count, stored.dedupe_count, stored.outside_period_count
        ) is distinct from (
            figure.event_count, figure.usage_count, figure.invalid_count, figure.dedupe_count, figure.outside_period_count
        )
),
written as (
    insert into recon.usage_aggregate as aggregate (
        gateway_name, usage_type, gateway_customer_id, period_start, period_end,
        event_count, usage_count, invalid_count, dedupe_count, outside_period_count
    )
    select
        :gateway_name, :usage_type, gateway_customer_id, period_start, period_end,
        event_count, usage_count, invalid_count, dedupe_count, outside_period_count
    from changed
    where event_count is not null
    on conflict (period_start, gateway_customer_id, period_end, usage_type, gateway_name)
    do update set
        event_count = excluded.event_count,
        usage_count = excluded.usage_count,
        invalid_count = excluded.invalid_count,
        dedupe_count = excluded.dedupe_count,
        outside_period_count = excluded.outside_period_count
    returning 1
),
gone as (
    delete from recon.usage_aggregate as aggregate
    using changed
    where changed.event_count is null
        and aggregate.gateway_name = :gateway_name
        and aggregate.usage_type = :usage_type
        and aggregate.gateway_customer_id = changed.gateway_customer_id
        and aggregate.period_start = changed.period_start
        and aggregate.period_end = changed.period_end
    returning 1
)
select
    count(*) as keys,
    coalesce(sum(event_count), 0)::bigint as events,
    (select count(*) from written) + (select count(*) from gone) as keys_changed
from figure
