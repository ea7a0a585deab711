-- The keys of an extent whose event sum no counter can hold: past bigint, or not a whole number.
-- Invariant: the repair fails exactly these, each by itself. A month in which there never was one is not looked at.
-- Index: none; the months say whether there is anything to be found.
-- Binds: customers text[], end timestamptz, every_customer boolean, first text, gateway_name text, last text
-- Binds: months_tell boolean, sample_rows bigint, start timestamptz, usage_type text
select gateway_customer_id, period_start::text as period_start, usage_count::text as event_sum,
    count(*) over () as found
from recon.usage_aggregate
where (
        not :months_tell
        or exists (
            select from recon.usage_month
            where gateway_name = :gateway_name
                and usage_type = :usage_type
                and has_oversized
                and partition between :first and :last
        )
    )
    and gateway_name = :gateway_name
    and usage_type = :usage_type
    and period_start >= :start
    and period_start < :end
    and (:every_customer or gateway_customer_id = any(:customers))
    and (usage_count > 9223372036854775807 or usage_count <> trunc(usage_count))
order by gateway_customer_id, period_start
limit :sample_rows
