-- Part of other statements: the bounded events of an extent, or of the keys in `given`. Which of the two is known when the statement is
-- planned.
-- Index: none for all keys of all months, (usage_type, period_start, period_end) for few months; for given keys billing_usage_events by
-- gateway_customer_id. The condition on keys stands in a case, so that keys are looked up in a hash.
-- Uses: bounded_events, in_extent
-- Binds: customers_given text[], every_key boolean, gateway_name text, usage_type text
select
    countable.gateway_customer_id, countable.period_start, countable.period_end, countable.quantity, countable.most_units, countable.least_units
from ({bounded_events}) as countable
where (
        not :every_key
        or (
            {in_extent}
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
