-- What the log says was sent in each of some windows of time, each of one customer's usage, and how many of its events have the label of
-- another period than the one that is given with the window. A window without events has no row.
-- Invariant: windows may overlap: the edges of a customer's windows part its time, each event is found once among them, and a window is the
-- sum of its parts, however many there are. Nothing is read but these customers' events from the first of these windows to the last one;
-- twice those of customers with a label whose events lie between several edges.
-- Index: the events by gateway_customer_id and event_timestamp; where another time is sent, by gateway_customer_id alone.
-- Uses: sent_events
-- Binds: customers text[], each_customer text[], earliest timestamptz, latest timestamptz, period_ends timestamptz[], period_starts timestamptz[]
-- Binds: settled_before timestamptz, window_ends timestamptz[], window_starts timestamptz[]
with asked as materialized (
    select *
    from unnest(
        cast(:customers as text[]),
        cast(:window_starts as timestamptz[]), cast(:window_ends as timestamptz[]),
        cast(:period_starts as timestamptz[]), cast(:period_ends as timestamptz[])
    ) with ordinality as asked (gateway_customer_id, window_start, window_end, period_start, period_end, number)
),

edge as materialized (
    select
        asked.gateway_customer_id,
        row_number() over () as customer_number,
        array_agg(distinct instant order by instant) as instants
    from asked
    cross join lateral unnest(array[asked.window_start, asked.window_end]) as instant
    group by asked.gateway_customer_id
),

-- What was sent, by label: the events of most labels lie between two edges, and need not be looked at one by one.
of_label as materialized (
    select
        edge.customer_number, edge.instants, label.*,
        width_bucket(label.first_at, edge.instants) as first_number,
        width_bucket(label.last_at, edge.instants) as last_number
    from (
        select
            event.gateway_customer_id, event.period_start, event.period_end,
            min(event.sent_at) as first_at,
            max(event.sent_at) as last_at,
            min(event.provider_customer) as least_customer,
            max(event.provider_customer) as greatest_customer,
            sum(event.quantity)::numeric as units,
            coalesce(sum(event.quantity) filter (where event.complete_at < :settled_before), 0)::numeric as settled_units,
            count(*) as event_count
        from ({sent_events}) as event
        where event.gateway_customer_id = any(:each_customer)
            and event.stamped_from >= :earliest
            and event.stamped_from < :latest
        group by event.gateway_customer_id, event.period_start, event.period_end
    ) as label
    join edge on edge.gateway_customer_id = label.gateway_customer_id
),

-- What lies between two edges, by label. Before the first edge and after the last one lies no window.
part as materialized (
    select customer_number, period_start, period_end, first_number as number, least_customer, greatest_customer, units, settled_units, event_count
    from of_label
    where first_number = last_number
    union all
    select
        of_label.customer_number, event.period_start, event.period_end,
        width_bucket(event.sent_at, of_label.instants) as number,
        min(event.provider_customer) as least_customer,
        max(event.provider_customer) as greatest_customer,
        sum(event.quantity)::numeric as units,
        coalesce(sum(event.quantity) filter (where event.complete_at < :settled_before), 0)::numeric as settled_units,
        count(*) as event_count
    from ({sent_events}) as event
    join of_label
        on of_label.gateway_customer_id = event.gateway_customer_id
        and of_label.period_start = event.period_start
        and of_label.period_end = event.period_end
        and of_label.first_number < of_label.last_number
    where event.gateway_customer_id = any(array(select gateway_customer_id from of_label where first_number < last_number))
        and event.stamped_from >= :earliest
        and event.stamped_from < :latest
    group by of_label.customer_number, event.period_start, event.period_end, number
),

-- A window's parts, one by one: to look for those between its edges would look at all parts of its customer, for each window.
of_window as materialized (
    select
        asked.number, asked.period_start, asked.period_end, edge.customer_number,
        generate_series(
            width_bucket(asked.window_start, edge.instants),
            width_bucket(asked.window_end, edge.instants) - 1
        ) as part_number
    from asked
    join edge on edge.gateway_customer_id = asked.gateway_customer_id
)

select
    asked.number,
    sum(part.units) as units,
    sum(part.settled_units) as settled_units,
    sum(part.event_count)::bigint as event_count,
    max(part.greatest_customer) as provider_customer,
    -- 0, 1, or 2 for several: a count of distinct ones would sort all events.
    case
        when min(part.least_customer) < max(part.greatest_customer) then 2
        else (max(part.greatest_customer) is not null)::integer
    end as provider_customer_count,
    coalesce(sum(part.event_count) filter (where (part.period_start, part.period_end) <> (asked.period_start, asked.period_end)), 0)::bigint as elsewhere_count,
    coalesce(sum(part.units) filter (where (part.period_start, part.period_end) <> (asked.period_start, asked.period_end)), 0) as elsewhere_units
from of_window as asked
join part on part.customer_number = asked.customer_number and part.number = asked.part_number
group by asked.number
