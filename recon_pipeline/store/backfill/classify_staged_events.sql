-- Records the outcome of each event of a chunk that was just inserted, so that outcomes can be counted and shown. The table ends with the
-- transaction.
-- Invariant: an event is a duplicate if the log bills the same: customer, usage type, quantity, period, and a time less than a day apart.
-- Sources write times within a day, and metadata, in different ways. More than a day apart, it is another event whose request id was used
-- twice. The setting recon.event_identity of the transaction contains the event identity.
-- Index: the log's unique key, or an index on request_id; one lookup for each event.
-- After: create_staged_events, declare_identity
create temporary table classified_event on commit drop as
select
    staged.ordinal, staged.refusal, event.differing,
    recon.billing_month(staged.period_start) as partition,
    case
        when event.id = staged.id then 'inserted'
        when event.id is null then 'refused'
        when event.differing = '{}' then 'duplicate'
        else 'conflict'
    end as outcome,
    case when event.differing <> '{}' then event.as_json end as stays
from pg_temp.staged_event as staged
left join lateral (
    select
        event.id,
        -- The columns that differ, by name.
        array_remove(array[
            case when event.gateway_customer_id is distinct from staged.gateway_customer_id then 'gateway_customer_id' end,
            case when event.usage_type is distinct from staged.usage_type then 'usage_type' end,
            case when event.quantity is distinct from staged.quantity then 'quantity' end,
            case when event.period_start is distinct from staged.period_start then 'period_start' end,
            case when event.period_end is distinct from staged.period_end then 'period_end' end,
            case
                when ('event_timestamp' = any(identity.columns) and event.event_timestamp <> staged.event_timestamp)
                    or event.event_timestamp < staged.event_timestamp - interval '24 hours'
                    or event.event_timestamp > staged.event_timestamp + interval '24 hours'
                    then 'event_timestamp'
            end
        ], null) as differing,
        jsonb_build_object(
            'id', event.id, 'gateway_name', event.gateway_name, 'gateway_customer_id', event.gateway_customer_id,
            'usage_type', event.usage_type, 'request_id', event.request_id, 'quantity', event.quantity,
            'period_start', event.period_start, 'period_end', event.period_end, 'event_timestamp', event.event_timestamp
        ) as as_json
    from billing_usage_events as event
    cross join (select string_to_array(current_setting('recon.event_identity', true), ',') as columns) as identity
    where event.gateway_name = staged.gateway_name and event.request_id = staged.request_id
        and recon.are_one_event(
            identity.columns,
            event.usage_type = staged.usage_type, event.gateway_customer_id = staged.gateway_customer_id,
            event.period_start = staged.period_start, event.period_end = staged.period_end,
            recon.are_one_instant(event.event_timestamp, staged.event_timestamp), true
        )
    order by
        event.id = staged.id desc,
        'event_timestamp' = any(identity.columns) and event.event_timestamp <> staged.event_timestamp,
        event.created_at, event.id
    limit 1
) as event on true
