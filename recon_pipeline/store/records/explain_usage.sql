-- The usage of one key in several ways: by the UTC day on which it happened, by the minutes in which most of it happened, by its producer,
-- and one row for all of it.
-- Invariant: counted, invalid and repeated events together are all events. An event arrived late if it arrived more than an hour after it
-- happened. An event from before the customer's first arrival is history that was imported, and not late. A table without the column
-- metadata has no devices. At most a few rows of each kind, in the order of their position. The customer's first arrival is looked up once,
-- and what is said of the whole log is summed once, whatever statistics say.
-- Index: the events by gateway_customer_id.
-- Uses: countable_events = countable_events | countable_events_deduplicated, classified_events
-- Binds: customer text, days bigint, gateway_name text, period_end timestamptz, period_start timestamptz, rows bigint
-- Binds: usage_type text
with first as materialized (
    select min(created_at) as arrived_at from billing_usage_events where gateway_customer_id = :customer
),
log as materialized (
    select
        count(*) filter (where is_valid is not true) as invalid_count,
        count(*) filter (where is_valid) as valid_count,
        extract(epoch from max(created_at - event_timestamp) filter (where event_timestamp >= first.arrived_at))::float8
            as latest_by_seconds,
        count(*) filter (where event_timestamp < period_start or event_timestamp >= period_end) as outside_period_count,
        min(event_timestamp) as first_at,
        max(event_timestamp) as last_at
    from ({classified_events}) as event
    cross join first
    where event.gateway_customer_id = :customer
        and (event.gateway_name, event.usage_type, event.period_start, event.period_end)
        = (:gateway_name, :usage_type, :period_start, :period_end)
)
select
    usage.kind, usage.day, usage.minute, usage.pattern, usage.device,
    usage.event_count, usage.usage_count, usage.running_total, usage.late_count, usage.late_usage,
    usage.imported_count,
    log.invalid_count, log.valid_count - usage.event_count as repeated_count, log.latest_by_seconds, log.outside_period_count,
    case when usage.kind = 'all' then log.first_at else usage.first_at end as first_at,
    case when usage.kind = 'all' then log.last_at else usage.last_at end as last_at
from (
    select
        grouped.*,
        -- The sum of the days up to the end of each.
        sum(usage_count) over (partition by kind order by day) as running_total,
        row_number() over (
            partition by kind order by day, case when kind <> 'day' then usage_count end desc, minute, pattern, device
        ) as position
    from (
        select
            case
                when grouping(day) = 0 then 'day'
                when grouping(minute) = 0 then 'minute'
                when grouping(pattern, device) = 0 then 'producer'
                else 'all'
            end as kind,
            day, minute, pattern, device,
            count(*) as event_count,
            coalesce(sum(quantity), 0)::numeric as usage_count,
            count(*) filter (where is_late) as late_count,
            coalesce(sum(quantity) filter (where is_late), 0)::numeric as late_usage,
            count(*) filter (where is_imported) as imported_count,
            min(event_timestamp) as first_at,
            max(event_timestamp) as last_at
        from (
            select
                countable.quantity,
                countable.event_timestamp,
                countable.created_at - countable.event_timestamp > interval '1 hour'
                    and countable.event_timestamp >= first.arrived_at as is_late,
                countable.created_at - countable.event_timestamp > interval '1 hour'
                    and countable.event_timestamp < first.arrived_at as is_imported,
                (coalesce(countable.event_timestamp, countable.created_at) at time zone 'UTC')::date as day,
                date_trunc('minute', coalesce(countable.event_timestamp, countable.created_at), 'UTC') as minute,
                -- The request id without what differs between requests.
                left(
                    regexp_replace(
                        regexp_replace(
                            countable.request_id, '[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}', '*', 'g'
                        ),
                        '[0-9a-fA-F]*[0-9][0-9a-fA-F]*', '*', 'g'
                    ),
                    80
                ) as pattern,
                left(coalesce(context.contents #>> '{device,id}', context.contents ->> 'device_id', context.contents ->> 'device', ''), 80)
                    as device
            from ({countable_events}) as countable
            cross join first
            cross join lateral (select to_jsonb(countable) -> 'metadata' as contents) as context
            where countable.gateway_customer_id = :customer
                and (countable.gateway_name, countable.usage_type, countable.period_start, countable.period_end)
                = (:gateway_name, :usage_type, :period_start, :period_end)
        ) as event
        group by grouping sets ((day), (minute), (pattern, device), ())
    ) as grouped
    where kind <> 'minute' or event_count > 1
) as usage
left join log on usage.kind = 'all'
where usage.position <= case when usage.kind = 'day' then cast(:days as bigint) else cast(:rows as bigint) end
order by usage.kind, usage.position
