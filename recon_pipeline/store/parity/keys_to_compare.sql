-- The next keys that this comparison has not reached and that are due, the most urgent first.
-- Invariant: a key is due if the log's sum is not the one that was compared, if a difference was found or it was refused, if it was never
-- compared, or while its invoice is not final and for once after that, a day after the last comparison. First come keys of periods whose
-- invoice becomes final within the hour and those that are due for a day, then keys with news, then the others, the oldest comparison first.
-- Index: the primary key of recon.parity_key.
-- Binds: end timestamptz, final_after_hours integer, gateway_name text, most_keys bigint, noted_at timestamptz, now timestamptz
-- Binds: start timestamptz, usage_type text
select
    gateway_customer_id, period_start, period_end,
    provider_customer, provider_customer_count, log_units, settled_units
from (
    select
        key.*,
        key.period_end + make_interval(hours => :final_after_hours) as final_at,
        (key.compared_log_units is distinct from key.log_units) as has_news
    from recon.parity_key as key
    where key.gateway_name = :gateway_name
        and key.usage_type = :usage_type
        and key.period_start >= :start
        and key.period_start < :end
        and key.period_start < :now
        and key.noted_at = :noted_at
        and (key.compared_at is null or key.compared_at < :noted_at)
) as key
where has_news
    or error is not null
    or difference_count > 0
    or (compared_at < cast(:now as timestamptz) - interval '1 day' and compared_at < final_at)
    or (:now >= period_end and compared_at < final_at and (:now >= final_at or compared_at < final_at - interval '1 hour'))
order by
    case
        when :now >= period_end and :now < final_at then 0
        when compared_at < cast(:now as timestamptz) - interval '23 hours' and compared_at < final_at then 0
        when has_news then 1
        else 2
    end,
    compared_at nulls first, gateway_customer_id, period_start, period_end
limit :most_keys
