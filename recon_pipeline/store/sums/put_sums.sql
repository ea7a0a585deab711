-- Writes the log's sums of some keys into recon.usage_aggregate: of an extent, or of the keys that this transaction has opened. This is the
-- only way in which aggregates are made, audited and rebuilt.
-- Invariant: the caller has locked the row of recon.event_log, so no other run writes aggregates. Sums, aggregates and notes are of one
-- snapshot. The events are those below the horizon, whose transactions have all ended. Noted keys are known to be wrong: they are
-- corrected, and not counted as found wrong. If a key has less than was stored, events left the log, since nothing else makes a sum of
-- final events fall: its open key keeps how much, until its counter matches. Usage and credits are compared apart, so that neither hides
-- what left of the other.
-- Index: none for all of the log. billing_usage_events by gateway_customer_id for opened keys, in a case, so that they are looked up in a
-- hash.
-- Uses: key_sums = key_sums | key_sums_deduplicated, in_extent
-- Uses: which_events = in_extent | below_horizon | below_horizon_of_opened | below_horizon_of_nameless
-- Binds: every_key boolean, gateway_name text, notes_left boolean, opens_differing boolean, sample_rows bigint
-- Binds: usage_type text
with opened as materialized (
    select gateway_customer_id, period_start, period_end
    from recon.open_key
    where not :every_key
        and gateway_name = :gateway_name
        and usage_type = :usage_type
        and noted_xid = pg_current_xact_id_if_assigned()
),
key_sum as materialized (
    {key_sums}
),
stored as materialized (
    select
        gateway_customer_id, period_start, period_end,
        event_count, usage_count, invalid_count, dedupe_count, outside_period_count, negative_count, credit_units
    from recon.usage_aggregate
    where :every_key
        and {in_extent}
    union all
    select
        opened.gateway_customer_id, opened.period_start, opened.period_end,
        aggregate.event_count, aggregate.usage_count, aggregate.invalid_count, aggregate.dedupe_count, aggregate.outside_period_count,
        aggregate.negative_count, aggregate.credit_units
    from opened
    cross join lateral (
        select *
        from recon.usage_aggregate
        where gateway_name = :gateway_name
            and usage_type = :usage_type
            and gateway_customer_id = opened.gateway_customer_id
            and period_start = opened.period_start
            and period_end = opened.period_end
        limit 1
    ) as aggregate
),
-- A full join never becomes a nested loop, whatever the statistics of a table that was just filled.
changed as materialized (
    select
        gateway_customer_id, period_start, period_end,
        key_sum.event_count, key_sum.usage_count, key_sum.invalid_count, key_sum.dedupe_count, key_sum.outside_period_count, key_sum.negative_count,
        key_sum.credit_units,
        stored.usage_count as stored_count,
        greatest(stored.event_count - coalesce(key_sum.event_count, 0), 0) as events_left,
        greatest(stored.usage_count - stored.credit_units - coalesce(key_sum.usage_count - key_sum.credit_units, 0), 0)
        -- A larger sum of credits was usage or smaller credits before, unless it is of more events, which may have come since.
        + case
            when :every_key and key_sum.negative_count > stored.negative_count then 0
            else greatest(stored.credit_units - coalesce(key_sum.credit_units, 0), 0)
        end as units_left,
        -- If the number of events is the same, smaller credits were updated. With :every_key there may be newer events in place of those
        -- that left.
        case
            when not :every_key and key_sum.event_count = stored.event_count then 0
            else greatest(coalesce(key_sum.credit_units, 0) - stored.credit_units, 0)
        end as credits_left
    from key_sum
    full join stored using (gateway_customer_id, period_start, period_end)
    where (
            stored.event_count, stored.usage_count, stored.invalid_count, stored.dedupe_count, stored.outside_period_count,
            stored.negative_count, stored.credit_units
        ) is distinct from (
            key_sum.event_count, key_sum.usage_count, key_sum.invalid_count, key_sum.dedupe_count, key_sum.outside_period_count,
            key_sum.negative_count, key_sum.credit_units
        )
),
gone as (
    delete from recon.usage_aggregate as aggregate
    using changed
    where changed.event_count is null
        and aggregate.gateway_name = :gateway_name
        and aggregate.usage_type = :usage_type
        and aggregate.gateway_customer_id = changed.gateway_customer_id
        and aggregate.period_start = changed.period_start
        and aggregate.period_end = changed.period_end
),
written as (
    insert into recon.usage_aggregate as aggregate (
        gateway_name, usage_type, gateway_customer_id, period_start, period_end,
        event_count, usage_count, invalid_count, dedupe_count, outside_period_count, negative_count, credit_units
    )
    select
        :gateway_name, :usage_type, gateway_customer_id, period_start, period_end,
        event_count, usage_count, invalid_count, dedupe_count, outside_period_count, negative_count, credit_units
    from changed
    where event_count is not null
    -- The order of the primary key, which is the fastest way to fill it.
    order by period_start, gateway_customer_id, period_end
    on conflict (period_start, gateway_customer_id, period_end, usage_type, gateway_name)
    do update set
        event_count = excluded.event_count,
        usage_count = excluded.usage_count,
        invalid_count = excluded.invalid_count,
        dedupe_count = excluded.dedupe_count,
        outside_period_count = excluded.outside_period_count,
        negative_count = excluded.negative_count,
        credit_units = excluded.credit_units
),
noted as materialized (
    select gateway_customer_id, period_start, period_end
    from recon.invalidated_key
    where gateway_name = :gateway_name and usage_type = :usage_type
),
named as materialized (
    select
        changed.*,
        (gateway_customer_id, period_start, period_end) in (select gateway_customer_id, period_start, period_end from noted) as is_noted
    from changed
    where gateway_customer_id <> ''
),
differing as (
    select gateway_customer_id, period_start, period_end, coalesce(stored_count, 0) as aggregated, coalesce(usage_count, 0) as in_log
    from named
    where not is_noted
),
opening as (
    insert into recon.open_key as open (
        gateway_name, usage_type, gateway_customer_id, period_start, period_end, reason, events_left, units_left, credits_left
    )
    select
        :gateway_name, :usage_type, gateway_customer_id, period_start, period_end, 'changed',
        case when :notes_left or is_noted then coalesce(events_left, 0) else 0 end,
        case when :notes_left or is_noted then coalesce(units_left, 0) else 0 end,
        case when :notes_left or is_noted then coalesce(credits_left, 0) else 0 end
    from named
    where (:opens_differing and not is_noted)
        or ((:notes_left or is_noted) and (units_left > 0 or credits_left > 0))
    order by gateway_customer_id, period_start, period_end
    on conflict (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
    do update set
        noted_xid = excluded.noted_xid,
        events_left = open.events_left + excluded.events_left,
        units_left = open.units_left + excluded.units_left,
        credits_left = open.credits_left + excluded.credits_left
),
total as (
    select
        (select count(*) from key_sum) as keys,
        (select coalesce(sum(event_count), 0)::bigint from key_sum) as events,
        (select count(*) from changed) as keys_changed,
        (select count(*) from differing) as keys_differing
)
select total.*, sample.*
from total
left join (
    select
        gateway_customer_id, period_start::text as period_start, period_end::text as period_end,
        aggregated::text as aggregated, in_log::text as in_log
    from differing
    order by abs(in_log - aggregated) desc, gateway_customer_id, period_start
    limit :sample_rows
) as sample on true
