-- Whether a metered usage has any visible event over all periods, and if not, any counter other than 0 in an open month.
-- Invariant: an empty log beside counters that are not 0 is a lost log, and no reason to lower them. Counters of months in which something stands in its place need no log.
-- Index: (usage_type, period_start, period_end) of the events; the first row is enough. The counters are read only if there is none.
-- Binds: gateway_name text, usage_type text
select
    log.has_events,
    case
        when not log.has_events
            then exists (
                select from billing_usage_counters as counter
                where gateway_name = :gateway_name
                    and usage_type = :usage_type
                    and usage_count <> 0
                    and not exists (
                        select from recon.stand_in
                        where gateway_name = :gateway_name
                            and usage_type = :usage_type
                            and partition = recon.billing_month(counter.period_start)
                            and covers_until >= counter.period_end
                    )
            )
        else true
    end as has_usage
from (
    select exists (
        select from billing_usage_events
        where gateway_name = :gateway_name and usage_type = :usage_type
    ) as has_events
) as log
