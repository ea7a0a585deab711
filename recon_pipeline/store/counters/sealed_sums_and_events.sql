-- Part of other statements: what counters of an extent, or of the keys in `given`, are compared with, where something stands in the place of the log in some of its months: the
-- bounded events of the keys that follow the log, and of each sealed key its sealed sum, or of one counted in the lake its sum there, as one event whose units are counted.
-- Index: recon.sealed_counter and recon.lake_counter by seal or count; else as {events_of_extent_or_given} says.
-- Uses: events_of_extent_or_given
-- Binds: customers text[], every_customer boolean, every_key boolean, seal_ids bigint[], sealed_months timestamptz[]
-- Binds: sealed_until timestamptz[]
select gateway_customer_id, period_start, period_end, quantity, most_units, least_units
from ({events_of_extent_or_given}) as event
where recon.follows_log(period_start, period_end, cast(:sealed_months as timestamptz[]), cast(:sealed_until as timestamptz[]))
union all
select gateway_customer_id, period_start, period_end, usage_count, usage_count, usage_count
from recon.stand_in_sum
where seal_id = any(cast(:seal_ids as bigint[]))
    and case
        when :every_key then :every_customer or gateway_customer_id = any(:customers)
        else (gateway_customer_id, period_start, period_end) in (select gateway_customer_id, period_start, period_end from given)
    end
