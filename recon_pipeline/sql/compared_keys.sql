-- Part of other statements: the keys that this run's comparison found drifted, those with an event that it did not see, and some of those that
-- it found in sync, others in each run, of the newest events: a burst is not read once more to choose from.
-- Invariant: every other key matched at the snapshot of this run's comparison. :verified_below is where that stood.
-- Index: the primary key of recon.counter_drift, by run; ingest_xid.
select
    gateway_customer_id, period_start, period_end,
    false as is_touched, null::bigint as usage_count, null::text as counter_xid, null::tid as counter_tid
from (
    select gateway_customer_id, period_start, period_end
    from recon.counter_drift
    where run_id = :run_id
        and gateway_name = :gateway_name
        and usage_type = :usage_type
    union
    {keys_with_news}
    union
    (
        select gateway_customer_id, period_start, period_end
        from (
            select distinct gateway_customer_id, period_start, period_end
            from (
                select gateway_customer_id, period_start, period_end
                from billing_usage_events
                where ingest_xid >= cast(:last_verified_below as xid8)
                    and ingest_xid < cast(:verified_below as xid8)
                    -- A case, as for the keys with news.
                    and case
                        when gateway_name = :gateway_name
                            and usage_type = :usage_type
                            and period_start >= :start
                            and period_start < :end
                            and gateway_customer_id is not null
                            and (:every_customer or gateway_customer_id = any(:customers))
                            then true
                    end
                order by ingest_xid desc
                limit :spot_checked_events
            ) as newest
        ) as in_sync
        order by hashtext(gateway_customer_id || :run_id)
        limit :spot_checked_keys
    )
) as key
