-- Part of repair_locked_counters: event sums of the locked keys, from the aggregates and the events that they do not hold yet.
-- Invariant: horizon, aggregates and events are read in this one statement, since another run may add to the aggregates at any time;
-- a horizon only ever moves up, so events below :horizon, which was read before, need no look. A key without an aggregate to rely
-- on (deleted or updated events, a month that is not built) is summed from the log.
-- The keys are asked for inside a case, so that each event is looked up in a hash of them. As a join it would be planned by statistics that know
-- nothing of the newest events, and loop through all of these for each key, while the counters are locked.
-- Index: the primary keys of horizon, months and aggregates; ingest_xid; for keys summed from the log billing_usage_events by gateway_customer_id.
select
    part.gateway_name, part.usage_type, part.gateway_customer_id, part.period_start, part.period_end,
    sum(part.visible) as visible,
    sum(part.unsettled) as unsettled
from (
    select
        asked.gateway_name, asked.usage_type, asked.gateway_customer_id, asked.period_start, asked.period_end,
        aggregate.usage_count as visible,
        0 as unsettled
    from asked
    cross join lateral (
        select usage_count, event_count
        from recon.usage_aggregate
        where (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
            = (asked.gateway_name, asked.usage_type, asked.gateway_customer_id, asked.period_start, asked.period_end)
        limit 1
    ) as aggregate
    where asked.horizon is not null
        and aggregate.event_count > 0
    union all
    select
        countable.gateway_name, countable.usage_type, countable.gateway_customer_id,
        countable.period_start, countable.period_end,
        countable.quantity,
        case
            when :settle_seconds > 0
                and countable.created_at
                between statement_timestamp() - make_interval(secs => :settle_seconds)
                and statement_timestamp() + make_interval(secs => :settle_seconds)
                then countable.quantity
            else 0
        end
    from ({countable_events}) as countable
    where countable.ingest_xid >= cast(:horizon as xid8)
        and case
            when (
                countable.gateway_name, countable.usage_type, countable.gateway_customer_id,
                countable.period_start, countable.period_end
            ) in (
                select gateway_name, usage_type, gateway_customer_id, period_start, period_end
                from asked
                where horizon is not null
            )
                -- All keys of a usage have one horizon.
                then countable.ingest_xid >= (
                    select horizon
                    from asked
                    where (asked.gateway_name, asked.usage_type) = (countable.gateway_name, countable.usage_type)
                        and horizon is not null
                    limit 1
                )
        end
    union all
    select
        countable.gateway_name, countable.usage_type, countable.gateway_customer_id,
        countable.period_start, countable.period_end,
        countable.quantity,
        case
            when :settle_seconds > 0
                and countable.created_at
                between statement_timestamp() - make_interval(secs => :settle_seconds)
                and statement_timestamp() + make_interval(secs => :settle_seconds)
                then countable.quantity
            else 0
        end
    from ({countable_events}) as countable
    where countable.gateway_customer_id = any(array(select gateway_customer_id from asked where horizon is null))
        and case
            when (
                countable.gateway_name, countable.usage_type, countable.gateway_customer_id,
                countable.period_start, countable.period_end
            ) in (
                select gateway_name, usage_type, gateway_customer_id, period_start, period_end
                from asked
                where horizon is null
            )
                then true
        end
) as part
group by part.gateway_name, part.usage_type, part.gateway_customer_id, part.period_start, part.period_end
