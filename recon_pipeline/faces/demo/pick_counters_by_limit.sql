-- Picks counters by their distance above their limit (below it: negative), and removes them from the untouched ones.
-- Invariant: those of open periods come first, because there a customer is blocked or let through. The order is random, but the same for
-- the same salt.
-- Index: the primary key of demo_untouched_counter.
delete from demo_untouched_counter as picked
using (
    select gateway_customer_id, period_start, period_end
    from demo_untouched_counter
    where usage_count - usage_limit between %(least_above)s and %(most_above)s
    order by
        period_end > %(now)s desc,
        hashtextextended(gateway_customer_id, %(salt)s),
        gateway_customer_id,
        period_start
    limit %(limit)s
) as choice
where picked.gateway_customer_id = choice.gateway_customer_id
  and picked.period_start = choice.period_start
  and picked.period_end = choice.period_end
returning
    picked.gateway_customer_id, picked.period_start, picked.period_end, picked.usage_count, picked.usage_limit
