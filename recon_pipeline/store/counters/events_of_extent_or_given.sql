-- Part of other statements: the countable events of an extent, or of the keys in `given`; which of the two is known when the statement is planned.
-- Index: none for all keys of all months, (usage_type, period_start, period_end) for few months; for given keys billing_usage_events by
-- gateway_customer_id. The keys are asked for inside a case, so that they are looked up in a hash.
-- Uses: countable_events = countable_events | countable_events_deduplicated, is_settled
-- Binds: customers text[], customers_given text[], end timestamptz, every_customer boolean, every_key boolean
-- Binds: gateway_name text, start timestamptz, usage_type text
select
    countable.gateway_customer_id, countable.period_start, countable.period_end, countable.quantity, {is_settled} as is_settled
from ({countable_events}) as countable
where (
        not :every_key
        or (
            countable.gateway_name = :gateway_name
            and countable.usage_type = :usage_type
            and countable.period_start >= :start
            and countable.period_start < :end
            and (:every_customer or countable.gateway_customer_id = any(:customers))
        )
    )
    and (
        :every_key
        or (
            countable.gateway_customer_id = any(cast(:customers_given as text[]))
            and case
                when countable.gateway_name = :gateway_name
                    and countable.usage_type = :usage_type
                    and (countable.gateway_customer_id, countable.period_start, countable.period_end)
                    in (select gateway_customer_id, period_start, period_end from given)
                    then true
            end
        )
    )
