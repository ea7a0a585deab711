-- The run whose figures the approving person has seen: the latest over the same metered usages, months and customers, or the one that was
-- named by the beginning of its id. With :is_blocked it is a blocked run, else one that compared and was not blocked: an approval answers
-- one question, and a blocked run asked another.
-- Invariant: since a blocked run, no run has repaired the same, and none anything under an approval of it, however that run ended;
-- otherwise what was shown is no longer true. The ledger shows which run repaired: a run that was killed has not recorded it in its own
-- row.
-- Index: recon.reconciliation_run by start, recon.counter_repair by run.
-- Binds: is_blocked boolean, named text, run_id text
select shown.*,
    extract(epoch from shown.finished_at - shown.started_at)::float8 * 1000 as duration_ms
from recon.reconciliation_run as shown
join recon.reconciliation_run as this
    on this.run_id = :run_id
    and shown.run_id <> this.run_id
    and shown.started_at < this.started_at
    and shown.scope @> this.scope
    and shown.scope <@ this.scope
    and (shown.first_partition, shown.last_partition) = (this.first_partition, this.last_partition)
    and (shown.customers is null) = (this.customers is null)
    and (this.customers is null or (shown.customers @> this.customers and shown.customers <@ this.customers))
where case when :is_blocked then shown.outcome = 'blocked' else shown.drift_count is not null and shown.outcome <> 'blocked' end
    and starts_with(shown.run_id, coalesce(case when :is_blocked then this.approved_run_id end, cast(:named as text)))
    and not exists (
        select
        from recon.reconciliation_run as later
        where :is_blocked
            and later.started_at > shown.started_at
            and later.run_id <> this.run_id
            and (
                later.outcome in ('clean', 'not_clean', 'paused')
                or exists (select from recon.counter_repair as repair where repair.run_id = later.run_id)
            )
            and (
                later.approved_run_id = shown.run_id
                or (
                    later.scope @> this.scope
                    and later.scope <@ this.scope
                    and (later.first_partition, later.last_partition) = (this.first_partition, this.last_partition)
                    and (later.customers is null) = (this.customers is null)
                    and (
                        this.customers is null
                        or (later.customers @> this.customers and later.customers <@ this.customers)
                    )
                )
            )
    )
order by shown.started_at desc
limit 1
