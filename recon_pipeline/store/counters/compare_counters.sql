-- Writes one row of recon.counter_drift for every key, of an extent or of those that are given, whose counter differs from the log.
-- Invariant: one statement reads log and counters, so at one snapshot. A counter is in sync between settled_sum (of the settled and the
-- negative events) and visible_sum (of the settled and the positive ones); with settle_seconds 0 both are the sum of all visible events. An
-- event is settled if its transaction had ended long enough ago, by the horizons of earlier runs. Units that a backfill inserted and no
-- repair has counted yet, credits too, are missing in the counter, whatever is in flight. Where credits are refused, a drifted key with an
-- event of negative quantity is doubtful. In a month in which a seal or a count in the lake stands in the place of the log, no event makes a key doubtful.
-- Ordinals number the keys in lock order. An unknown limit is null, and then nothing is a
-- transition. Whether backfilled units are settled is written out: they have the id of a transaction (xid8) and not the xmin of a row,
-- which recon.is_settled takes.
-- Index: as {compared_events} says, and the unique key of the counters; recon.uncounted_backfill is small.
-- Uses: compared_events = events_of_extent_or_given | sealed_sums_and_events, counters_of_extent_or_given, subscribed_keys = subscribed_keys | no_key_is_known
-- Binds: customers_given text[], gateway_name text, limit_free bigint, limit_paid bigint, limits_known boolean
-- Binds: ordinal_offset bigint, period_ends_given text[], period_starts_given text[], refuses_negative boolean, run_id text
-- Binds: seal_ids bigint[], sealed_months timestamptz[], sealed_until timestamptz[], settle_seconds integer, settled_below xid8, usage_type text
with given as materialized (
    select gateway_customer_id, period_start::timestamptz as period_start, period_end::timestamptz as period_end
    from unnest(cast(:customers_given as text[]), cast(:period_starts_given as text[]), cast(:period_ends_given as text[]))
        as key (gateway_customer_id, period_start, period_end)
),
compared as materialized (
    select
        gateway_customer_id,
        period_start,
        period_end,
        counter.usage_count,
        coalesce(event_sum.visible, 0) as visible_sum,
        coalesce(event_sum.settled, 0) as settled_sum,
        event_sum.visible is null as without_events,
        case when :settle_seconds > 0 then coalesce(event_sum.used, 0) else coalesce(event_sum.visible, 0) - coalesce(event_sum.credit_units, 0) end
            as used_units,
        coalesce(event_sum.credit_units, 0) as credit_units,
        coalesce(event_sum.credit_count, 0) as credit_count
    from (
        select
            gateway_customer_id,
            period_start,
            period_end,
            coalesce(sum(most_units), 0)::numeric as visible,
            coalesce(sum(least_units), 0)::numeric as settled,
            -- A case, so that what is not used is not computed.
            case when :settle_seconds > 0 then (sum(quantity) filter (where quantity > 0))::numeric end as used,
            (sum(quantity) filter (where quantity < 0))::numeric as credit_units,
            count(*) filter (where quantity < 0) as credit_count
        from ({compared_events}) as event
        group by gateway_customer_id, period_start, period_end
    ) as event_sum
    full join ({counters_of_extent_or_given}) as counter using (gateway_customer_id, period_start, period_end)
    where coalesce(counter.usage_count, 0) not between coalesce(event_sum.settled, 0) and coalesce(event_sum.visible, 0)
        or case
            when :settle_seconds > 0
                then (gateway_customer_id, period_start, period_end)
                in (
                    select gateway_customer_id, period_start, period_end
                    from recon.uncounted_backfill
                    where gateway_name = :gateway_name and usage_type = :usage_type
                )
        end
),
-- A repair adds uncounted units to the counter; those of events in flight come by themselves.
drifted as (
    select
        gateway_customer_id, period_start, period_end,
        compared.usage_count, compared.without_events, compared.used_units, compared.credit_units, compared.credit_count,
        bound.least_sum as settled_sum,
        bound.most_sum as visible_sum,
        case
            when not recon.follows_log(period_start, period_end, cast(:sealed_months as timestamptz[]), cast(:sealed_until as timestamptz[]))
                then (cast(:seal_ids as bigint[]))[array_position(cast(:sealed_months as timestamptz[]), date_trunc('month', period_start, 'UTC'))]
        end as seal_id
    from compared
    -- A full join, filtered to a left join, never becomes a nested loop. Uncounted keys may be of other months.
    full join (
        select
            gateway_customer_id, period_start, period_end,
            sum(units) as units,
            coalesce(sum(units - credit_units) filter (where (inserted_xid < cast(:settled_below as xid8)) is not true), 0) as usage_in_flight,
            coalesce(sum(credit_units) filter (where (inserted_xid < cast(:settled_below as xid8)) is not true), 0) as credits_in_flight
        from recon.uncounted_backfill
        where :settle_seconds > 0
            and gateway_name = :gateway_name
            and usage_type = :usage_type
        group by gateway_customer_id, period_start, period_end
    ) as uncounted using (gateway_customer_id, period_start, period_end)
    cross join lateral recon.counter_bounds(
        compared.settled_sum, compared.visible_sum, coalesce(compared.usage_count, 0),
        uncounted.units, uncounted.usage_in_flight, uncounted.credits_in_flight
    ) as bound
    where case
        when compared.visible_sum is not null then coalesce(compared.usage_count, 0) not between bound.least_sum and bound.most_sum
    end
),
limited as (
    select gateway_customer_id, period_start, period_end from drifted
),
subscribed as (
    {subscribed_keys}
)
insert into recon.counter_drift (
    run_id, ordinal, gateway_name, usage_type, gateway_customer_id, period_start, period_end,
    kind, usage_count, settled_sum, visible_sum, used_units, credit_units, credit_count, seal_id, usage_limit, outcome, error, doubts
)
select
    :run_id,
    :ordinal_offset + row_number() over (
        order by drifted.gateway_customer_id, drifted.period_start, drifted.period_end
    ),
    :gateway_name,
    :usage_type,
    drifted.gateway_customer_id,
    drifted.period_start,
    drifted.period_end,
    case
        when drifted.usage_count is null then 'missing'
        when drifted.without_events then 'orphan'
        when drifted.usage_count < drifted.settled_sum then 'under'
        else 'over'
    end,
    drifted.usage_count,
    drifted.settled_sum,
    drifted.visible_sum,
    drifted.used_units,
    drifted.credit_units,
    drifted.credit_count,
    drifted.seal_id,
    case
        when not :limits_known then null
        when subscribed.is_paid then cast(:limit_paid as bigint)
        when subscribed.is_paid is null then cast(:limit_free as bigint)
    end,
    case when :refuses_negative and drifted.credit_count > 0 and drifted.seal_id is null then 'doubtful' end,
    case
        when :refuses_negative and drifted.credit_count > 0 and drifted.seal_id is null
            then 'has ' || drifted.credit_count
                || ' events of negative quantity: set RECON_NEGATIVE_QUANTITIES=sum if they are credits'
    end,
    case when :refuses_negative and drifted.credit_count > 0 and drifted.seal_id is null then array['negative quantities'] else '{}' end
from drifted
-- Subscribed keys are drifted ones, so this is a left join. A full join never becomes a nested loop, whatever the statistics of tables that
-- were just filled.
full join subscribed using (gateway_customer_id, period_start, period_end)
