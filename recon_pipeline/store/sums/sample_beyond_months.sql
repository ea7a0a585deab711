-- A sample of events of a metered usage whose period begins outside the known months, and how many there are among the first :most of each
-- kind.
-- Invariant: infinity is later than every month, and a null period_start is a kind of its own, so every event is counted. The usage is
-- filtered after the limit, so that a tick's cost is bounded whatever the log holds.
-- Index: (usage_type, period_start, ...) or (period_start, ...), in its order.
-- Binds: first_start timestamptz, gateway_name text, last_end timestamptz, most bigint, sample_rows bigint
-- Binds: usage_type text
with beyond as materialized (
    (
        select 'earlier' as kind, event.*
        from billing_usage_events as event
        where usage_type = :usage_type and period_start < :first_start
        order by period_start desc
        limit :most
    )
    union all
    (
        select 'later', event.*
        from billing_usage_events as event
        where usage_type = :usage_type and period_start >= :last_end
        order by period_start
        limit :most
    )
    union all
    (
        select 'never', event.*
        from billing_usage_events as event
        where usage_type = :usage_type and period_start is null
        limit :most
    )
)
select total.*, odd.*
from (
    select
        count(*) filter (where kind = 'earlier' and gateway_name = :gateway_name) as earlier_count,
        count(*) filter (where kind = 'later' and gateway_name = :gateway_name) as later_count,
        count(*) filter (where kind = 'never' and gateway_name = :gateway_name) as never_count,
        greatest(
            count(*) filter (where kind = 'earlier'), count(*) filter (where kind = 'later'), count(*) filter (where kind = 'never')
        ) < :most as is_all
    from beyond
) as total
left join lateral (
    select
        id::text as event_id,
        left(gateway_customer_id::text, 200) as gateway_customer_id,
        request_id::text as request_id,
        quantity::text as quantity,
        period_start::text as period_start,
        period_end::text as period_end,
        event_timestamp::text as event_timestamp
    from beyond
    where gateway_name = :gateway_name
    limit :sample_rows
) as odd on true
