-- The next keys that this comparison has not reached and that are due, in their order.
-- Invariant: a key is due if it has news, if a difference was found or it was refused, in the last hour before its invoice is final, once
-- after that, and as long as its invoice is not final each time that a day is over. Once a day is enough for a difference that no sending
-- changes: what is missing is too old, or the invoice is out. It has news if it was never compared, if news of it in the log were marked
-- that its comparison had not read, or if the time of an event within its window has come since then. First come keys with news, then those
-- whose invoice becomes final within the hour, then those of a day ago, then the others; of each the oldest comparison first. So that none
-- of them waits for ever, keys with news come after those two for some time of each comparison. A key whose events are in the lake or an
-- archive is never due: the log need not have them. Neither is one whose period has no end (infinity, or a year that no program of ours can
-- hold): it has no invoice, and must not stop the others.
-- Index: the primary key of recon.parity_key; one pass over recon.parity_difference, which is small.
-- Uses: in_months
-- Binds: absent_months timestamptz[], absent_until timestamptz[], began timestamptz, final_after_hours integer, gateway_name text
-- Binds: most_keys bigint, news_come_first boolean, now timestamptz, until timestamptz, usage_type text
select gateway_customer_id, period_start, period_end, provider_customer, news_at, compared_at
from (
    select
        known.*,
        (
            known.compared_at is null
            or known.news_at is not null
            or (
                known.latest_at >= known.compared_until
                and known.latest_at < :until
                and known.compared_until < date_trunc('minute', known.period_end, 'UTC')
            )
        ) is true as has_news,
        (
            cast(:now as timestamptz) >= known.final_at - interval '1 hour'
            and :now < known.final_at
            and known.compared_at < known.final_at - interval '1 hour'
        ) as is_closing,
        known.compared_at < cast(:now as timestamptz) - interval '23 hours' as is_old,
        known.difference_count > 0 and (gateway_customer_id, period_start, period_end) in (
            select gateway_customer_id, period_start, period_end
            from recon.parity_difference
            where gateway_name = :gateway_name
                and usage_type = :usage_type
                and kind not in ('expired', 'finalized')
        ) as can_change
    from (
        select *, period_end + make_interval(hours => :final_after_hours) as final_at
        from recon.parity_key
        where {in_months}
            and (compared_at is null or compared_at < :began)
            and period_end < '9999-01-01 00:00:00+00'
            and recon.follows_log(period_start, period_end, cast(:absent_months as timestamptz[]), cast(:absent_until as timestamptz[]))
    ) as known
) as key
where has_news
    or is_closing
    or (is_old and (compared_at < final_at or difference_count > 0))
    or can_change
    or error is not null
    or (:now >= final_at and compared_at < final_at)
order by
    case
        when has_news and :news_come_first then 0
        when is_closing then 1
        when is_old and compared_at < final_at then 2
        when has_news then 3
        else 4
    end,
    compared_at nulls first, gateway_customer_id, period_start, period_end
limit :most_keys
