-- Notes the suspects whose aggregate, with the events at or above the horizon, differs from the log's own sum, so that they are summed
-- again.
-- Invariant: runs in the transaction of the comparison, after it. The sum of a suspect was wrong if its counter did not fit it, and the log
-- found the counter in sync or with another sum. Keys that are noted already are known to be wrong.
-- Index: recon.counter_drift by run. A full join never becomes a nested loop.
-- Binds: added_up text[], customers_given text[], gateway_name text, noted boolean[], period_ends_given text[]
-- Binds: period_starts_given text[], run_id text, usage_type text
insert into recon.invalidated_key (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
select :gateway_name, :usage_type, gateway_customer_id, period_start, period_end
from (
    select gateway_customer_id, period_start::timestamptz as period_start, period_end::timestamptz as period_end, added_up::numeric as added_up, is_noted
    from unnest(
        cast(:customers_given as text[]), cast(:period_starts_given as text[]), cast(:period_ends_given as text[]),
        cast(:added_up as text[]), cast(:noted as boolean[])
    ) as key (gateway_customer_id, period_start, period_end, added_up, is_noted)
) as suspect
full join (
    select gateway_customer_id, period_start, period_end, visible_sum
    from recon.counter_drift
    where run_id = :run_id
        and gateway_name = :gateway_name
        and usage_type = :usage_type
) as drift using (gateway_customer_id, period_start, period_end)
where not suspect.is_noted
    and drift.visible_sum is distinct from suspect.added_up
