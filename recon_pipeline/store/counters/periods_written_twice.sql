-- Part of other statements: the keys of `near` whose period another key of it or a counter has, written in another way, each with a sentence
-- that says so.
-- Invariant: one period is written in two ways if both bounds lie at most a second apart, as where a driver or a column cuts microseconds.
-- Where counters are unique without the end, which may have moved, the start alone decides. The ordinal is null for a key that is only
-- there for comparison. Two keys that both follow a seal or a count in the lake (`stand_in`) are two: each has its own sum there.
-- Index: the unique key of the counters, for each key with an ordinal; then a sort, never a nested loop.
-- Binds: end_is_in_key boolean
select
    one.ordinal,
    min(
        format(
            'one period written in two ways: %s to %s, and %s to %s',
            one.period_start, one.period_end, other.period_start, other.period_end
        )
    ) as doubt
from (
    select
        ordinal, period_start, period_end, is_sealed,
        array_agg(period_start) over beside as starts,
        array_agg(period_end) over beside as ends,
        array_agg(is_sealed) over beside as seals
    from (
        select ordinal, gateway_name, usage_type, gateway_customer_id, period_start, period_end, is_sealed
        from near
        union all
        select
            null, near.gateway_name, near.usage_type, near.gateway_customer_id, counter.period_start, counter.period_end,
            exists (
                select from stand_in
                where (gateway_name, usage_type, partition) = (near.gateway_name, near.usage_type, recon.billing_month(counter.period_start))
                    and covers_until >= counter.period_end
            )
        from near
        cross join lateral (
            select period_start, period_end
            from billing_usage_counters
            where gateway_name = near.gateway_name
                and gateway_customer_id = near.gateway_customer_id
                and usage_type = near.usage_type
                and period_start >= near.period_start - interval '1 second'
                and period_start <= near.period_start + interval '1 second'
                and (period_start, period_end) <> (near.period_start, near.period_end)
            limit 100
        ) as counter
        where near.ordinal is not null
    ) as key
    window beside as (
        partition by gateway_name, usage_type, gateway_customer_id
        order by period_start range between interval '1 second' preceding and interval '1 second' following
    )
) as one
cross join lateral unnest(one.starts, one.ends, one.seals) as other (period_start, period_end, is_sealed)
where one.ordinal is not null
    and (other.period_start, other.period_end) <> (one.period_start, one.period_end)
    and not (one.is_sealed and other.is_sealed)
    and other.period_start >= one.period_start - interval '1 second'
    and other.period_start <= one.period_start + interval '1 second'
    and (not :end_is_in_key or abs(extract(epoch from other.period_end) - extract(epoch from one.period_end)) <= 1)
group by one.ordinal
