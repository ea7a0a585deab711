-- Part of other statements: usage that the aggregates do not hold: events at or above the horizon, and all events of keys that a
-- deletion or an update has made wrong.
-- Index: ingest_xid; billing_usage_events by gateway_customer_id for the noted keys.
select
    countable.gateway_customer_id, countable.period_start, countable.period_end,
    countable.quantity::numeric as visible,
    case
        when :settle_seconds > 0
            and countable.created_at between now() - make_interval(secs => :settle_seconds)
            and now() + make_interval(secs => :settle_seconds)
            then countable.quantity::numeric
        else 0
    end as unsettled
from ({countable_events}) as countable
where countable.ingest_xid >= cast(:horizon as xid8)
    -- A case, so that the planner reads them by ingest_xid alone, whatever the statistics say of a log that just grew.
    and case
        when countable.gateway_name = :gateway_name
            and countable.usage_type = :usage_type
            and countable.period_start >= :start
            and countable.period_start < :end
            and (:every_customer or countable.gateway_customer_id = any(:customers))
            then true
    end
    and not exists (
        select
        from recon.invalidated_key as noted
        where noted.gateway_name = :gateway_name
            and noted.usage_type = :usage_type
            and noted.gateway_customer_id = countable.gateway_customer_id
            and noted.period_start = countable.period_start
            and noted.period_end = countable.period_end
    )
union all
select
    countable.gateway_customer_id, countable.period_start, countable.period_end,
    countable.quantity::numeric,
    case
        when :settle_seconds > 0
            and countable.created_at between now() - make_interval(secs => :settle_seconds)
            and now() + make_interval(secs => :settle_seconds)
            then countable.quantity::numeric
        else 0
    end
from ({countable_events}) as countable
where countable.gateway_customer_id = any(array(
        select gateway_customer_id
        from recon.invalidated_key
        where gateway_name = :gateway_name and usage_type = :usage_type
    ))
    and countable.gateway_name = :gateway_name
    and countable.usage_type = :usage_type
    and countable.period_start >= :start
    and countable.period_start < :end
    and (:every_customer or countable.gateway_customer_id = any(:customers))
    and exists (
        select
        from recon.invalidated_key as noted
        where noted.gateway_name = :gateway_name
            and noted.usage_type = :usage_type
            and noted.gateway_customer_id = countable.gateway_customer_id
            and noted.period_start = countable.period_start
            and noted.period_end = countable.period_end
    )
