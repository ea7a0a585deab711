-- Totals the aggregates of a range of months that were just built.
-- Invariant: the caller holds the row of recon.horizon; a month without events has a row too, since it is built.
-- recomputed_count begins at the id of this transaction, so that a month which is built again never has the number that a run saw before.
-- Index: none; all of what was built is read.
insert into recon.usage_month (
    gateway_name, usage_type, partition, last_period_end,
    key_count, event_count, invalid_count, dedupe_count, outside_period_count, has_oversized, recomputed_count
)
select
    :gateway_name, :usage_type, built.partition, month.last_period_end,
    coalesce(month.key_count, 0), coalesce(month.event_count, 0), coalesce(month.invalid_count, 0),
    coalesce(month.dedupe_count, 0), coalesce(month.outside_period_count, 0), coalesce(month.has_oversized, false),
    pg_current_xact_id()::text::bigint
from unnest(cast(:partitions as text[])) as built (partition)
left join (
    select
        to_char(date_trunc('month', period_start, 'UTC') at time zone 'UTC', 'YYYY-MM') as partition,
        max(period_end) as last_period_end,
        count(*) as key_count,
        sum(event_count) as event_count,
        sum(invalid_count) as invalid_count,
        sum(dedupe_count) as dedupe_count,
        sum(outside_period_count) as outside_period_count,
        bool_or(usage_count > 9223372036854775807 or usage_count <> trunc(usage_count)) as has_oversized
    from recon.usage_aggregate
    where gateway_name = :gateway_name
        and usage_type = :usage_type
        and period_start >= :start
        and period_start < :end
    group by date_trunc('month', period_start, 'UTC')
) as month using (partition)
order by built.partition
