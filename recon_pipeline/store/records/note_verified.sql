-- Records for the months of a run below which transactions every counter matched, except those of open keys.
-- Invariant: the caller has locked the row of recon.event_log. Both marks of a month move together, and never back. A run that did not
-- check counters by their rows' age leaves their mark as it is. A month that has a row counts as built, so none is made while its
-- aggregates are of another log; without a horizon all of them are rebuilt. What was matched is the seal of the month or, without one, the
-- log.
-- Index: the primary key of recon.usage_month.
-- Binds: counters_verified_below xid8, gateway_name text, partitions text[], run_id text, usage_type text
-- Binds: verified_below xid8, verified_seal_ids bigint[]
insert into recon.usage_month as month (
    gateway_name, usage_type, partition, verified_below, counters_verified_below, verified_at, verified_seal_id
)
select
    :gateway_name, :usage_type, verified.partition, cast(:verified_below as xid8), cast(:counters_verified_below as xid8),
    (select started_at from recon.reconciliation_run where run_id = :run_id),
    verified.seal_id
from unnest(cast(:partitions as text[]), cast(:verified_seal_ids as bigint[])) as verified (partition, seal_id)
where exists (
        select from recon.usage_month as built
        where built.gateway_name = :gateway_name and built.usage_type = :usage_type and built.partition = verified.partition
    )
    or exists (select from recon.event_log where horizon is null)
order by verified.partition
on conflict (gateway_name, usage_type, partition)
do update set
    verified_below = coalesce(excluded.verified_below, month.verified_below),
    counters_verified_below = coalesce(excluded.counters_verified_below, month.counters_verified_below),
    verified_at = greatest(month.verified_at, excluded.verified_at),
    verified_seal_id = excluded.verified_seal_id
where excluded.verified_below is null
    or (
        (month.verified_below is null or month.verified_below <= excluded.verified_below)
        and (month.counters_verified_below is null or month.counters_verified_below <= excluded.counters_verified_below)
    )
