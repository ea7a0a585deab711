-- Sums the keys anew whose events were deleted or updated, and takes their notes away.
-- Invariant: runs as one statement, so the notes that it takes away are those of changes that its sums see; a change that commits later leaves a
-- note of its own. The caller holds the row of recon.horizon, at :horizon.
-- Index: recon.invalidated_key by usage; billing_usage_events by gateway_customer_id; the primary keys of the aggregates.
with taken as (
    delete from recon.invalidated_key
    where gateway_name = :gateway_name and usage_type = :usage_type
    returning gateway_customer_id, period_start, period_end
),
noted as materialized (
    select distinct gateway_customer_id, period_start, period_end
    from taken
    where to_char(period_start at time zone 'UTC', 'YYYY-MM') = any(:partitions)
),
figure as materialized (
    select figure.*
    from ({key_figures}) as figure
    join noted using (gateway_customer_id, period_start, period_end)
),
stored as materialized (
    select aggregate.*
    from noted
    cross join lateral (
        select *
        from recon.usage_aggregate
        where gateway_name = :gateway_name
            and usage_type = :usage_type
            and gateway_customer_id = noted.gateway_customer_id
            and period_start = noted.period_start
            and period_end = noted.period_end
        limit 1
    ) as aggregate
),
written as (
    insert into recon.usage_aggregate as aggregate (
        gateway_name, usage_type, gateway_customer_id, period_start, period_end,
        event_count, usage_count, invalid_count, dedupe_count, outside_period_count
    )
    select
        :gateway_name, :usage_type, gateway_customer_id, period_start, period_end,
        event_count, usage_count, invalid_count, dedupe_count, outside_period_count
    from figure
    order by period_start, gateway_customer_id, period_end
    on conflict (period_start, gateway_customer_id, period_end, usage_type, gateway_name)
    do update set
        event_count = excluded.event_count,
        usage_count = excluded.usage_count,
        invalid_count = excluded.invalid_count,
        dedupe_count = excluded.dedupe_count,
        outside_period_count = excluded.outside_period_count
),
gone as (
    delete from recon.usage_aggregate as aggregate
    using stored
    where (
            aggregate.gateway_name, aggregate.usage_type, aggregate.gateway_customer_id,
            aggregate.period_start, aggregate.period_end
        ) = (:gateway_name, :usage_type, stored.gateway_customer_id, stored.period_start, stored.period_end)
        and not exists (
            select from figure
            where (figure.gateway_customer_id, figure.period_start, figure.period_end)
                = (stored.gateway_customer_id, stored.period_start, stored.period_end)
        )
),
of_month as (
    select
        to_char(period_start at time zone 'UTC', 'YYYY-MM') as partition,
        sum(key_count) as key_count,
        sum(event_count) as event_count,
        sum(invalid_count) as invalid_count,
        sum(dedupe_count) as dedupe_count,
        sum(outside_period_count) as outside_period_count,
        bool_or(usage_count > 9223372036854775807 or usage_count <> trunc(usage_count)) as has_oversized
    from (
        select
            period_start, 1 as key_count, event_count, invalid_count, dedupe_count, outside_period_count, usage_count
        from figure
        union all
        select period_start, -1, -event_count, -invalid_count, -dedupe_count, -outside_period_count, 0 from stored
        union all
        select period_start, 0, 0, 0, 0, 0, 0 from noted
    ) as difference
    group by 1
)
update recon.usage_month as month
set
    key_count = month.key_count + of_month.key_count,
    event_count = month.event_count + of_month.event_count,
    invalid_count = month.invalid_count + of_month.invalid_count,
    dedupe_count = month.dedupe_count + of_month.dedupe_count,
    outside_period_count = month.outside_period_count + of_month.outside_period_count,
    has_oversized = month.has_oversized or of_month.has_oversized,
    recomputed_count = month.recomputed_count + 1,
    verified_below = null
from of_month
where month.gateway_name = :gateway_name
    and month.usage_type = :usage_type
    and month.partition = of_month.partition
returning month.partition
