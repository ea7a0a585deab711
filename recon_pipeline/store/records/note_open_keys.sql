-- Records which keys of a run's months do not count as verified, and why; deletes the open keys that the run saw and that match, with their
-- uncounted units.
-- Invariant: the caller has locked the row of recon.event_log, and records in the same transaction what counts as verified. A key that was
-- opened at or above the run's oldest transaction was perhaps not seen, and stays; one of a transaction that this server has not reached was
-- restored from another server's dump, and was seen. While events of a key are in flight, it also stays if it
-- was doubtful or something of it left the log: its counter then lies in a band, which hides what left. It matches only once they have
-- settled, or once a run with an approval has repaired it.
-- Index: the primary key of recon.open_key and of recon.uncounted_backfill; open keys are few. recon.counter_drift and
-- recon.counter_repair, of the run. billing_usage_events by gateway_customer_id, only with settle_seconds.
-- Uses: in_months
-- Binds: gateway_name text, open_customers text[], open_errors text[], open_period_ends text[]
-- Binds: open_period_starts text[], open_reasons text[], run_id text, seen_below xid8, settle_seconds integer, settled_below xid8
-- Binds: usage_type text
with mismatching as materialized (
    select gateway_customer_id, period_start::timestamptz as period_start, period_end::timestamptz as period_end, reason, error
    from unnest(
        cast(:open_customers as text[]), cast(:open_period_starts as text[]), cast(:open_period_ends as text[]),
        cast(:open_reasons as text[]), cast(:open_errors as text[])
    ) as key (gateway_customer_id, period_start, period_end, reason, error)
),
-- No row that is visible here was noted by a later transaction of this server.
reached as materialized (
    select greatest(pg_snapshot_xmax(pg_current_snapshot()), pg_current_xact_id()) as newest
),
in_flight as materialized (
    select gateway_customer_id, period_start, period_end
    from billing_usage_events as event
    where :settle_seconds > 0
        and (select count(*) from recon.open_key where units_left > 0 or credits_left > 0 or doubts <> '{}') > 0
        and gateway_customer_id = any(array(
            select gateway_customer_id
            from recon.open_key
            where gateway_name = :gateway_name and usage_type = :usage_type and (units_left > 0 or credits_left > 0 or doubts <> '{}')
        ))
        and case
            when {in_months}
                and period_end is not null
                and recon.is_settled(event.xmin, cast(:settled_below as xid8)) is not true
                then true
        end
),
matching as (
    delete from recon.open_key
    where {in_months}
        and (noted_xid < cast(:seen_below as xid8) or noted_xid > (select newest from reached))
        and (gateway_customer_id, period_start, period_end)
        not in (select gateway_customer_id, period_start, period_end from mismatching)
        and (
            (units_left = 0 and credits_left = 0 and doubts = '{}')
            or (gateway_customer_id, period_start, period_end)
            not in (select gateway_customer_id, period_start, period_end from in_flight)
            or (gateway_customer_id, period_start, period_end) in (
                select gateway_customer_id, period_start, period_end
                from recon.counter_drift as drift
                where run_id = :run_id
                    and gateway_name = :gateway_name
                    and usage_type = :usage_type
                    and units_left is not null
                    and exists (select from recon.counter_repair as repair where repair.drift_id = drift.id)
            )
        )
),
-- What a backfill inserted and a person counted by hand. A key that a repair has locked at this moment is left to that repair.
counted as (
    delete from recon.uncounted_backfill
    where ctid = any(array(
        select ctid
        from recon.uncounted_backfill
        where {in_months}
            and (inserted_xid < cast(:seen_below as xid8) or inserted_xid > (select newest from reached))
            and (gateway_customer_id, period_start, period_end)
            not in (select gateway_customer_id, period_start, period_end from mismatching)
        for update skip locked
    ))
)
insert into recon.open_key (gateway_name, usage_type, gateway_customer_id, period_start, period_end, reason, error)
select :gateway_name, :usage_type, gateway_customer_id, period_start, period_end, reason, error
from mismatching
order by gateway_customer_id, period_start, period_end
on conflict (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
do update set
    reason = excluded.reason,
    error = excluded.error,
    noted_xid = excluded.noted_xid
