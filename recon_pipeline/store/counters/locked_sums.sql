-- Part of repair_locked_counters: the event sums of the locked keys of open months, from the log's own rows: the most and the least that their counters
-- may be. Also the sums of keys that begin at nearly the same time, since one of them may be a locked key whose period is written in
-- another way: where counters are unique without the end, those of sealed keys too.
-- Index: billing_usage_events by gateway_customer_id, read once per chunk. The condition on keys stands in a case, so that each event is
-- looked up in a hash of them.
-- Uses: bounded_events
-- Binds: end_is_in_key boolean
select
    countable.gateway_name, countable.usage_type, countable.gateway_customer_id,
    countable.period_start, countable.period_end,
    coalesce(sum(countable.most_units), 0)::numeric as visible,
    coalesce(sum(countable.least_units), 0)::numeric as settled,
    count(*) filter (where countable.quantity < 0) as negative_count
from ({bounded_events}) as countable
where countable.gateway_customer_id = any(array(select distinct gateway_customer_id from locked where seal_id is null or not :end_is_in_key))
    and case
        when countable.period_start >= (select min(period_start) - interval '1 second' from locked)
            and countable.period_start <= (select max(period_start) + interval '1 second' from locked)
            and (countable.gateway_name, countable.usage_type, countable.gateway_customer_id)
            in (select gateway_name, usage_type, gateway_customer_id from locked where seal_id is null or not :end_is_in_key)
            then true
    end
group by countable.gateway_name, countable.usage_type, countable.gateway_customer_id,
    countable.period_start, countable.period_end
