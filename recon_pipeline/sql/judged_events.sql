-- Part of other statements: the events of an extent, or of the keys in `opened`, each with the verdict whether it may count. Which of the two is known when
-- the statement is planned.
-- Index: (usage_type, period_start, period_end) for a few months, a sequential scan for all of them; or as {which_events} says.
select event.*, coalesce({valid_event}, false) as is_valid
from billing_usage_events as event
where (
        not :every_key
        or (
            event.gateway_name = :gateway_name
            and event.usage_type = :usage_type
            and event.period_start >= :start
            and event.period_start < :end
            and (:every_customer or event.gateway_customer_id = any(:customers))
        )
    )
    and {which_events}
