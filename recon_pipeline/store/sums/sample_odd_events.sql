-- A sample of events that a person should see: invalid ones (never summed) or ones outside their period (summed).
-- Invariant: values are text as Postgres prints them, so every value can be shown. Below the horizon, a tick samples only from a few keys
-- that have not very many events; an audit samples from all.
-- Index: recon.usage_aggregate of odd keys; billing_usage_events by gateway_customer_id, or by ingest_xid for those beyond the horizon.
-- Uses: classified_events, in_extent_following_log
-- Binds: gateway_name text, horizon xid8, invalid boolean, most_events_sampled bigint, sample_rows bigint
-- Binds: usage_type text
select
    event.id::text as event_id,
    left(event.gateway_customer_id::text, 200) as gateway_customer_id,
    event.request_id::text as request_id,
    event.quantity::text as quantity,
    event.period_start::text as period_start,
    event.period_end::text as period_end,
    event.event_timestamp::text as event_timestamp
from (
    select event.*
    from (
        select gateway_customer_id, period_start, period_end
        from recon.usage_aggregate
        where {in_extent_following_log}
            and (invalid_count > 0 or outside_period_count > 0)
            and case when :invalid then invalid_count else outside_period_count end > 0
            and event_count + invalid_count + dedupe_count <= :most_events_sampled
        order by period_start desc
        limit :sample_rows
    ) as key
    cross join lateral (
        select *
        from ({classified_events}) as event
        where gateway_customer_id = key.gateway_customer_id
        union all
        -- No index finds the events that belong to no key: they are searched among the newest ones.
        select *
        from (
            (select * from ({classified_events}) as event where ingest_xid is not null order by ingest_xid desc limit :most_events_sampled)
            union all
            (select * from ({classified_events}) as event where ingest_xid is null limit :most_events_sampled)
        ) as newest
        where key.gateway_customer_id = ''
            and (recon.fits_index(gateway_customer_id) and period_end is not null) is not true
    ) as event
    where event.gateway_name = :gateway_name
        and event.usage_type = :usage_type
        and event.period_start = key.period_start
        and coalesce(event.period_end, event.period_start) = key.period_end
        and (event.ingest_xid >= cast(:horizon as xid8)) is not true
    union all
    select *
    from ({classified_events}) as event
    where ingest_xid >= cast(:horizon as xid8)
        -- A case, so that the planner reads them by ingest_xid alone, whatever the statistics of a log that just grew.
        and case
            when {in_extent_following_log} then true
        end
) as event
where case
    when :invalid then event.is_valid is not true
    else event.event_timestamp < event.period_start or event.event_timestamp >= event.period_end
end
limit :sample_rows
