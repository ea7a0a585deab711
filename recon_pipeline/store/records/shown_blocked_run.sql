-- The blocked run whose figures a person has seen who approves this one: the latest over the same metered usages, months and customers, or the one that
-- was named by the beginning of its id.
-- Invariant: no run has repaired the same since, or anything under an approval of it, however that run ended; what was shown before that is no
-- longer what is. The ledger says who repaired: a run that was killed has said nothing of it.
-- Index: recon.reconciliation_run by start, recon.counter_repair by run.
-- Binds: named text, run_id text
select blocked.*, blocked.horizon::text as horizon_text,
    extract(epoch from blocked.finished_at - blocked.started_at)::float8 * 1000 as duration_ms
from recon.reconciliation_run as blocked
join recon.reconciliation_run as this
    on this.run_id = :run_id
    and blocked.run_id <> this.run_id
    and blocked.started_at < this.started_at
    and blocked.scope @> this.scope
    and blocked.scope <@ this.scope
    and (blocked.first_partition, blocked.last_partition) = (this.first_partition, this.last_partition)
    and (blocked.customers is null) = (this.customers is null)
    and (this.customers is null or (blocked.customers @> this.customers and blocked.customers <@ this.customers))
where blocked.outcome = 'blocked'
    and starts_with(blocked.run_id, coalesce(this.approved_run_id, cast(:named as text)))
    and not exists (
        select
        from recon.reconciliation_run as later
        where later.started_at > blocked.started_at
            and later.run_id <> this.run_id
            and (
                later.outcome in ('clean', 'not_clean', 'paused')
                or exists (select from recon.counter_repair as repair where repair.run_id = later.run_id)
            )
            and (
                later.approved_run_id = blocked.run_id
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
order by blocked.started_at desc
limit 1
