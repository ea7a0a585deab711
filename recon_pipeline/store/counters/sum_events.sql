-- What the countable events of some keys of a metered usage add up to: kept as the sealed sums of a seal, or returned, of those keys that differ from a seal;
-- of keys with periods that end until a time, or of all.
-- Each sum is given as the most and the least that a counter may be; and how many of the events are of negative quantity. The checksum of a key is the sum of
-- those of its events, in whichever order; it is made of what is billed, so that other programs can make it: sha256 of request id, customer, gateway and usage type,
-- each after its length in bytes, and of period, quantity and time, times in seconds since 1970.
-- Invariant: the sums are of the log's own rows at one snapshot. A repair takes them as final only if no event of the key is deleted or updated later.
-- Index: as {which_events} says; recon.sealed_counter by seal.
-- Uses: bounded_events
-- Uses: which_events = in_extent | in_extent_when_sealed | events_of_drifted_key
-- Binds: compared_with bigint, covers_until timestamptz, kept_as bigint, with_checksums boolean
with summed as materialized (
    select
        gateway_customer_id, period_start, period_end,
        count(*) as event_count,
        sum(quantity)::numeric as usage_count,
        coalesce(sum(most_units), 0)::numeric as visible,
        coalesce(sum(least_units), 0)::numeric as settled,
        count(*) filter (where quantity < 0) as negative_count,
        coalesce(sum(quantity) filter (where quantity < 0), 0)::numeric as credit_units,
        case
            when :with_checksums
                then sum(
                    ('x' || left(encode(sha256(convert_to(
                        concat(
                            octet_length(request_id::text), ':', request_id, octet_length(gateway_customer_id::text), ':', gateway_customer_id,
                            octet_length(gateway_name::text), ':', gateway_name, octet_length(usage_type::text), ':', usage_type,
                            ';', extract(epoch from period_start), ';', extract(epoch from period_end),
                            ';', trim_scale(quantity::numeric), ';', extract(epoch from event_timestamp)
                        ),
                        'UTF8'
                    )), 'hex'), 16))::bit(64)::bigint
                )
        end::numeric as event_checksum
    from ({bounded_events}) as countable
    where {which_events}
    group by gateway_customer_id, period_start, period_end
),
kept as (
    insert into recon.sealed_counter (
        seal_id, gateway_customer_id, period_start, period_end, usage_count, event_count, credit_units, event_checksum
    )
    select :kept_as, gateway_customer_id, period_start, period_end, usage_count::bigint, event_count, credit_units, event_checksum
    from summed
    where cast(:kept_as as bigint) is not null
    order by gateway_customer_id, period_start, period_end
)
select
    gateway_customer_id, period_start::text as period_start, period_end::text as period_end,
    coalesce(sealed.usage_count, 0)::text as sealed_sum, coalesce(sealed.event_count, 0) as sealed_events,
    trim_scale(coalesce(summed.usage_count, 0))::text as sum_now, coalesce(summed.event_count, 0) as events_now,
    trim_scale(coalesce(summed.usage_count, 0) - coalesce(sealed.usage_count, 0))::text as difference,
    summed.visible::text as visible, summed.settled::text as settled, summed.negative_count
from summed
full join (
    select * from recon.sealed_counter where seal_id = :compared_with
) as sealed using (gateway_customer_id, period_start, period_end)
where cast(:kept_as as bigint) is null
    and (period_end <= cast(:covers_until as timestamptz)) is not false
    and (sealed.usage_count, sealed.event_count, sealed.event_checksum) is distinct from (summed.usage_count, summed.event_count, summed.event_checksum)
order by gateway_customer_id, period_start, period_end
