-- The months of a metered usage that have aggregates; and, for those months that were not read before, the periods that the log knows, no
-- counter has, and that overlap a period of the same customer's counters.
-- Invariant: a month is returned only if the aggregates are of this log and made in incremental mode, so that newer and noted events
-- complete them. A month without a period that reaches :since is not read; newer events and noted keys are read of all months, with
-- :with_newer. The sums only name suspects: the log itself shows whether it has an event of such a period. All of it is read at one
-- snapshot.
-- Index: one pass each over the primary key of recon.usage_aggregate, by period, over ingest_xid, and over counters by period_start, where
-- there is such an index. The log by gateway_customer_id, for the few that are found; the other conditions stand in a case, so that
-- Postgres takes no index on periods for them.
-- Binds: gateway_name text, last text, log_identity text, partitions text[], since timestamptz, usage_type text
-- Binds: with_newer boolean
with month as materialized (
    select partition, last_period_end
    from recon.usage_month
    where gateway_name = :gateway_name
        and usage_type = :usage_type
        and partition <= :last
        and exists (select from recon.event_log where identity = :log_identity and horizon is not null)
        and not exists (select from recon.invalidated_key where gateway_name is null)
),
span as materialized (
    select
        min(partition) as first,
        max(partition) as last,
        to_date(min(partition), 'YYYY-MM')::timestamp at time zone 'UTC' as since,
        (to_date(max(partition), 'YYYY-MM') + interval '1 month') at time zone 'UTC' as until
    from month
    where last_period_end > :since and partition <> all(:partitions)
),
known as materialized (
    select gateway_customer_id, period_start, period_end
    from recon.usage_aggregate
    where gateway_name = :gateway_name
        and usage_type = :usage_type
        and period_start >= (select since from span)
        and period_start < (select until from span)
        and event_count > 0
    union all
    select gateway_customer_id, period_start, period_end
    from billing_usage_events
    where :with_newer
        and ingest_xid >= (select horizon from recon.event_log)
        and gateway_name = :gateway_name
        and usage_type = :usage_type
    union all
    select gateway_customer_id, period_start, period_end
    from recon.invalidated_key
    where :with_newer and gateway_name = :gateway_name and usage_type = :usage_type
),
-- Except is hashed: the planner does not know how many keys have no counter.
uncounted as materialized (
    select gateway_customer_id, period_start, period_end
    from known
    except
    select gateway_customer_id, period_start, period_end
    from billing_usage_counters
    where gateway_name = :gateway_name
        and usage_type = :usage_type
        and period_start >= (select min(period_start) from known)
        and period_start <= (select max(period_start) from known)
),
suspect as materialized (
    select gateway_customer_id, period_start, period_end
    from uncounted
    where period_start < period_end
        and period_start >= '0001-01-02Z'
        and period_end < '9999-01-01Z'
        and exists (
            select
            from billing_usage_counters as counter
            where counter.gateway_name = :gateway_name
                and counter.usage_type = :usage_type
                and counter.gateway_customer_id = uncounted.gateway_customer_id
                and counter.period_start < uncounted.period_end
                and counter.period_end > uncounted.period_start
        )
)
select month.partition, month.partition between span.first and span.last as is_read,
    null as gateway_customer_id, null::timestamptz as period_start, null::timestamptz as period_end
from month
cross join span
union all
select null, true, suspect.gateway_customer_id, suspect.period_start, suspect.period_end
from suspect
cross join lateral (
    select
    from billing_usage_events as event
    where event.gateway_customer_id = suspect.gateway_customer_id
        and case
            when event.gateway_name = :gateway_name
                and event.usage_type = :usage_type
                and event.period_start = suspect.period_start
                and event.period_end = suspect.period_end
                then true
        end
    limit 1
) as event
