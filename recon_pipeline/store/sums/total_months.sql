-- Totals the aggregates of some months after they were corrected from the log, and inserts the row of a month that was not built.
-- Invariant: the caller has locked the row of recon.event_log. What was remembered of other sums is forgotten with them. A month without events has a row too, since it is built. The months are
-- written out, so that this text needs no part and can be sent as it stands.
-- Index: the primary key of recon.usage_aggregate, by period.
-- Uses: in_months
-- Binds: gateway_name text, partitions text[], usage_type text
insert into recon.usage_month as month (
    gateway_name, usage_type, partition, last_period_end,
    key_count, nonzero_count, event_count, invalid_count, dedupe_count, outside_period_count, negative_count, has_oversized
)
select
    :gateway_name, :usage_type, built.partition, total.last_period_end,
    coalesce(total.key_count, 0), coalesce(total.nonzero_count, 0), coalesce(total.event_count, 0), coalesce(total.invalid_count, 0),
    coalesce(total.dedupe_count, 0), coalesce(total.outside_period_count, 0), coalesce(total.negative_count, 0),
    coalesce(total.has_oversized, false)
from unnest(cast(:partitions as text[])) as built (partition)
full join (
    select
        recon.billing_month(date_trunc('month', period_start, 'UTC')) as partition,
        max(period_end) as last_period_end,
        count(*) as key_count,
        count(*) filter (where usage_count <> 0) as nonzero_count,
        sum(event_count) as event_count,
        sum(invalid_count) as invalid_count,
        sum(dedupe_count) as dedupe_count,
        sum(outside_period_count) as outside_period_count,
        sum(negative_count) as negative_count,
        bool_or(not recon.fits_bigint(usage_count)) as has_oversized
    from recon.usage_aggregate
    where {in_months}
    group by date_trunc('month', period_start, 'UTC')
) as total using (partition)
where built.partition is not null
order by built.partition
on conflict (gateway_name, usage_type, partition)
do update set
    last_period_end = excluded.last_period_end,
    key_count = excluded.key_count,
    nonzero_count = excluded.nonzero_count,
    event_count = excluded.event_count,
    invalid_count = excluded.invalid_count,
    dedupe_count = excluded.dedupe_count,
    outside_period_count = excluded.outside_period_count,
    negative_count = excluded.negative_count,
    has_oversized = excluded.has_oversized,
    summed_xid = pg_current_xact_id(),
    since_seal = null
