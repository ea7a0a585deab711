-- Keeps the outcome that each event of a whole source would have, to be counted in several ways. It inserts nothing; the table ends with
-- the transaction.
-- Invariant: events are the same as in insert_staged_events and classify_staged_events. The first of several of one identity would be
-- inserted; the others are compared with it. The setting recon.event_identity of the transaction contains the event identity. Where the
-- time is part of the identity, the source is also searched by request id, since the first event may be written with another time.
-- Index: the log's unique key, or an index on request_id; one lookup for each event, ordered as in insert_staged_events.
-- After: create_staged_events, declare_identity
create temporary table preview_event on commit drop as
with identity as (
    select string_to_array(current_setting('recon.event_identity', true), ',') as columns
)
select
    staged.gateway_name, staged.gateway_customer_id, staged.usage_type, staged.quantity,
    staged.period_start, staged.period_end,
    recon.billing_month(staged.period_start) as partition,
    case
        when event.id = staged.id then 'inserted'
        when not event.differs then 'duplicate'
        else 'conflict'
    end as outcome
from (
    select
        staged.*, identity.columns,
        case
            when 'event_timestamp' = any(identity.columns) then (
                select min(earlier.ordinal)
                from pg_temp.staged_event as earlier
                where earlier.is_first
                    and earlier.gateway_name = staged.gateway_name and earlier.request_id = staged.request_id
                    and recon.are_one_event(
                        identity.columns,
                        earlier.usage_type = staged.usage_type, earlier.gateway_customer_id = staged.gateway_customer_id,
                        earlier.period_start = staged.period_start, earlier.period_end = staged.period_end,
                        recon.are_one_instant(earlier.event_timestamp, staged.event_timestamp), true
                    )
            )
            else first_value(staged.ordinal) over (
                partition by staged.gateway_name, staged.request_id,
                    case when 'usage_type' = any(identity.columns) then staged.usage_type end,
                    case when 'gateway_customer_id' = any(identity.columns) then staged.gateway_customer_id end,
                    case when 'period_start' = any(identity.columns) then staged.period_start end,
                    case when 'period_end' = any(identity.columns) then staged.period_end end
                order by staged.ordinal
            )
        end as first_ordinal
    from pg_temp.staged_event as staged
    cross join identity
) as staged
cross join lateral (
    select
        event.id,
        (
            (event.gateway_customer_id, event.usage_type, event.quantity, event.period_start, event.period_end)
            is distinct from (staged.gateway_customer_id, staged.usage_type, staged.quantity, staged.period_start, staged.period_end)
        ) or coalesce(
            event.event_timestamp < staged.event_timestamp - interval '24 hours'
            or event.event_timestamp > staged.event_timestamp + interval '24 hours',
            false
        ) or ('event_timestamp' = any(staged.columns) and event.event_timestamp <> staged.event_timestamp) as differs
    from (
        (
            select
                false as is_staged, id, gateway_customer_id, usage_type, quantity::numeric, period_start, period_end,
                event_timestamp
            from billing_usage_events as event
            cross join identity
            where event.gateway_name = staged.gateway_name and event.request_id = staged.request_id
                and recon.are_one_event(
                    identity.columns,
                    event.usage_type = staged.usage_type, event.gateway_customer_id = staged.gateway_customer_id,
                    event.period_start = staged.period_start, event.period_end = staged.period_end,
                    recon.are_one_instant(event.event_timestamp, staged.event_timestamp), true
                )
            order by
                'event_timestamp' = any(identity.columns) and event.event_timestamp <> staged.event_timestamp,
                (event.created_at, event.id)
            limit 1
        )
        union all
        select true, id, gateway_customer_id, usage_type, quantity, period_start, period_end, event_timestamp
        from pg_temp.staged_event as earlier
        where earlier.ordinal = staged.first_ordinal
    ) as event
    order by event.is_staged
    limit 1
) as event
