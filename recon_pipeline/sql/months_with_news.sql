-- The billing months that a tick must look at: with a period that is open or ended lately, never verified, or with new events, deleted or
-- updated ones since they were verified, or with a drifted key that a run left alone because of a hold.
-- Invariant: an idle old month is not among them, and costs nothing; after a truncation every month is.
-- Index: ingest_xid, from the horizon on; recon.invalidated_key by usage; recon.usage_month has a row for each month.
with usage as materialized (
    select * from unnest(cast(:gateway_names as text[]), cast(:usage_types as text[])) as usage (gateway_name, usage_type)
),
horizon as materialized (
    select horizon.* from recon.horizon as horizon join usage using (gateway_name, usage_type)
)
select known.partition
from unnest(cast(:partitions as text[])) as known (partition)
cross join usage
left join recon.usage_month as month using (gateway_name, usage_type, partition)
left join horizon using (gateway_name, usage_type)
where month.partition is null
    or month.verified_below is distinct from horizon.horizon
    or exists (select from recon.invalidated_key where gateway_name is null)
    -- A month without events may have counters all the same.
    or coalesce(
        month.last_period_end,
        (to_date(known.partition, 'YYYY-MM') + interval '1 month') at time zone 'UTC'
    ) > now() - make_interval(days => :recent_days)
union
select to_char(event.period_start at time zone 'UTC', 'YYYY-MM')
from billing_usage_events as event
join usage using (gateway_name, usage_type)
where event.ingest_xid >= (select min(horizon) from horizon)
    and event.period_start >= :start
    and event.period_start < :end
union
select to_char(noted.period_start at time zone 'UTC', 'YYYY-MM')
from recon.invalidated_key as noted
join usage using (gateway_name, usage_type)
where noted.period_start >= :start
    and noted.period_start < :end
union
select to_char(held.period_start at time zone 'UTC', 'YYYY-MM')
from recon.held_key as held
join usage using (gateway_name, usage_type)
where held.period_start >= :start
    and held.period_start < :end
order by partition
