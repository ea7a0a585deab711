-- Finds the keys of an extent whose aggregate is not what the log adds up to, and notes them to be recomputed.
-- Invariant: log, aggregates and horizon are read at one snapshot, so nothing is held up and nothing that comes in between looks like a
-- difference; keys that are noted already are known to be wrong and not counted.
-- Index: none; all of the log is read.
with figure as materialized (
    {key_figures}
),
noted as materialized (
    select distinct gateway_customer_id, period_start, period_end
    from recon.invalidated_key
    where gateway_name = :gateway_name and usage_type = :usage_type
),
differing as materialized (
    select
        gateway_customer_id, period_start, period_end,
        coalesce(stored.usage_count, 0) as aggregated, coalesce(figure.usage_count, 0) as in_log
    from figure
    full join ({stored_figures}) as stored using (gateway_customer_id, period_start, period_end)
    full join (select *, true as is_noted from noted) as noted using (gateway_customer_id, period_start, period_end)
    where noted.is_noted is null
        and (
            stored.event_count, stored.usage_count, stored.invalid_count, stored.dedupe_count, stored.outside_period_count
        ) is distinct from (
            figure.event_count, figure.usage_count, figure.invalid_count, figure.dedupe_count, figure.outside_period_count
        )
),
noting as (
    insert into recon.invalidated_key (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
    select :gateway_name, :usage_type, gateway_customer_id, period_start, period_end
    from differing
)
select
    gateway_customer_id, period_start::text as period_start, period_end::text as period_end,
    aggregated::text as aggregated, in_log::text as in_log,
    count(*) over () as found
from differing
order by abs(in_log - aggregated) desc, gateway_customer_id, period_start
limit :sample_rows
