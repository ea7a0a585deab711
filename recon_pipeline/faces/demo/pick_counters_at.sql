-- Picks counters whose period contains a moment, and removes them from the untouched ones.
-- Invariant: a change by up to the margin leaves each of them on its side of the limit. The order is random, but the same for the same
-- salt.
-- Index: the primary key of demo_untouched_counter.
delete from demo_untouched_counter as picked
using (
    select gateway_customer_id, period_start, period_end
    from demo_untouched_counter
    where period_start <= %(moment)s
      and period_end > %(moment)s
      and abs(usage_count - usage_limit) > %(margin)s
    order by hashtextextended(gateway_customer_id, %(salt)s), gateway_customer_id
    limit %(limit)s
) as choice
where picked.gateway_customer_id = choice.gateway_customer_id
  and picked.period_start = choice.period_start
  and picked.period_end = choice.period_end
returning
    picked.gateway_customer_id, picked.period_start, picked.period_end, picked.usage_count, picked.usage_limit
