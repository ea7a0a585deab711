-- Part of other statements: the events of an extent, or of the keys in `given`. Which of the two is known when the statement is planned.
-- Binds: customers text[], customers_given text[], end timestamptz, every_customer boolean, every_key boolean
-- Binds: gateway_name text, start timestamptz, usage_type text
(
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
