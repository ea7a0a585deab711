-- The billing months that a tick covers: with a period that is open or ended lately, never verified, with new, deleted or updated events
-- since they were verified, with an open key, or sealed, reopened or counted in the lake since.
-- Invariant: an idle old month is not among them, and costs nothing; after a truncation every month is.
-- Index: ingest_xid, from the horizon on; the other tables are small.
-- Binds: end timestamptz, gateway_names text[], horizon xid8, partitions text[], recent_days integer
-- Binds: start timestamptz, usage_types text[]
with usage as materialized (
    select * from unnest(cast(:gateway_names as text[]), cast(:usage_types as text[])) as usage (gateway_name, usage_type)
)
select known.partition
from unnest(cast(:partitions as text[])) as known (partition)
cross join usage
left join recon.usage_month as month using (gateway_name, usage_type, partition)
left join recon.stand_in as stand_in using (gateway_name, usage_type, partition)
where month.verified_below is null
    or month.verified_below is distinct from cast(:horizon as xid8)
    or month.verified_seal_id is distinct from stand_in.seal_id
    or exists (select from recon.invalidated_key where gateway_name is null)
    -- A month without events may still have counters.
    or coalesce(
        month.last_period_end,
        (to_date(known.partition, 'YYYY-MM') + interval '1 month') at time zone 'UTC'
    ) > now() - make_interval(days => :recent_days)
union
select recon.billing_month(period_start)
from (
    select gateway_name, usage_type, period_start from billing_usage_events where ingest_xid >= cast(:horizon as xid8)
    union all
    select gateway_name, usage_type, period_start from recon.invalidated_key
    union all
    select gateway_name, usage_type, period_start from recon.open_key
) as key
where (gateway_name, usage_type) in (select gateway_name, usage_type from usage)
    and period_start >= :start
    and period_start < :end
order by partition
