-- Marks the keys of an extent that have news: events came, whose time as it is sent lies in the period.
-- Invariant: an event that is labelled as of another period is news of the one in which it lies.
-- Index: ingest_xid, since the condition on usage stands in a case: by statistics of before, what is new looks like a third of the log. The
-- primary key of recon.parity_key.
-- Uses: sent_time
-- Binds: began timestamptz, end timestamptz, gateway_name text, since xid8, start timestamptz, usage_type text
with came as materialized (
    select cast(:gateway_name as text) as gateway_name, cast(:usage_type as text) as usage_type, gateway_customer_id, min(sent_at) as first_at, max(sent_at) as latest_at
    from (
        select gateway_customer_id, period_start, period_end, sent_at
        from billing_usage_events as event
        cross join lateral ({sent_time}) as stamp
        where ingest_xid >= cast(:since as xid8)
            and case when gateway_name = :gateway_name and usage_type = :usage_type then true end
    ) as sent
    where sent_at is not null
    group by gateway_customer_id, period_start, period_end
),

news as materialized (
    select key.gateway_name, key.usage_type, key.gateway_customer_id, key.period_start, key.period_end, max(came.latest_at) as latest_at
    from came
    join recon.parity_key as key
        on (key.gateway_name, key.usage_type, key.gateway_customer_id) = (came.gateway_name, came.usage_type, came.gateway_customer_id)
        and key.period_start >= :start
        and key.period_start < :end
        and date_trunc('minute', key.period_start, 'UTC') <= came.latest_at
        and key.period_end > came.first_at
    group by key.gateway_name, key.usage_type, key.gateway_customer_id, key.period_start, key.period_end
)
update recon.parity_key as key
set news_at = :began, latest_at = greatest(key.latest_at, news.latest_at)
from news
-- The usage comes from `news`, as in mark_parity_changed.
where (key.gateway_name, key.usage_type, key.gateway_customer_id, key.period_start, key.period_end)
    = (news.gateway_name, news.usage_type, news.gateway_customer_id, news.period_start, news.period_end)
