-- Part of repair_locked_counters: the locked keys to be summed, with the horizon of the aggregates to rely on, null where there are none.
-- Index: the primary keys of recon.horizon and recon.usage_month; recon.invalidated_key by usage.
select
    locked.gateway_name, locked.usage_type, locked.gateway_customer_id, locked.period_start, locked.period_end,
    (
        select horizon.horizon
        from recon.horizon as horizon
        join recon.usage_month as month using (gateway_name, usage_type)
        where horizon.gateway_name = locked.gateway_name
            and horizon.usage_type = locked.usage_type
            and horizon.horizon >= cast(:horizon as xid8)
            and month.partition = to_char(locked.period_start at time zone 'UTC', 'YYYY-MM')
            and not exists (
                select
                from recon.invalidated_key as noted
                where noted.gateway_name = locked.gateway_name
                    and noted.usage_type = locked.usage_type
                    and noted.gateway_customer_id = locked.gateway_customer_id
                    and noted.period_start = locked.period_start
                    and noted.period_end = locked.period_end
            )
            and not exists (select from recon.invalidated_key where gateway_name is null)
    ) as horizon
from locked
where not locked.unchanged
