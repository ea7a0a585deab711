-- Part of other statements: usage by key as rows to be summed, from the log itself; `unsettled` is the part of it that is young.
-- Index: none for all months; (usage_type, period_start, period_end) for few.
select
    countable.gateway_customer_id, countable.period_start, countable.period_end,
    countable.quantity as visible,
    -- A case, so that where every event counts as settled ages are not even looked at.
    case
        when :settle_seconds > 0
            and countable.created_at between now() - make_interval(secs => :settle_seconds)
            and now() + make_interval(secs => :settle_seconds)
            then countable.quantity
        else 0
    end as unsettled
from ({countable_events}) as countable
where countable.gateway_name = :gateway_name
    and countable.usage_type = :usage_type
    and countable.period_start >= :start
    and countable.period_start < :end
    and (:every_customer or countable.gateway_customer_id = any(:customers))
