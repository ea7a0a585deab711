-- What the log says was sent in each of some windows of time, each of one customer's usage, and how many of its events have a label in which
-- their time does not lie.
-- Invariant: windows may overlap: the edges of a customer's windows part its time, each event is found once among them, and a window is the
-- sum of its parts, however many there are. Nothing is read but these customers' events from the first of these windows to the last one;
-- twice those of customers with a label whose events lie between several edges. Where a window is of one customer of the provider's, events
-- that name another one are not in it.
-- Index: the events by gateway_customer_id and event_timestamp; where another time is sent, by gateway_customer_id alone.
-- Uses: sent_events
-- Binds: customers text[], each_customer text[], earliest timestamptz, latest timestamptz, provider_customers text[]
-- Binds: settled_before timestamptz, window_ends timestamptz[], window_starts timestamptz[]
with asked as materialized (
    select *
    from unnest(
        cast(:customers as text[]), cast(:provider_customers as text[]),
        cast(:window_starts as timestamptz[]), cast(:window_ends as timestamptz[])
    ) with ordinality as asked (gateway_customer_id, provider_customer, window_start, window_end, number)
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
            event.gateway_customer_id, event.provider_customer, event.period_start, event.period_end,
            min(event.sent_at) as first_at,
            max(event.sent_at) as last_at,
            sum(event.quantity)::numeric as units,
            coalesce(sum(event.quantity) filter (where event.complete_at < :settled_before), 0)::numeric as settled_units,
            count(*) as event_count,
            count(*) filter (where event.is_elsewhere) as elsewhere_count,
            coalesce(sum(event.quantity) filter (where event.is_elsewhere), 0)::numeric as elsewhere_units
        from ({sent_events}) as event
        where event.gateway_customer_id = any(:each_customer)
            and event.stamped_from >= :earliest
            and event.stamped_from < :latest
        group by event.gateway_customer_id, event.provider_customer, event.period_start, event.period_end
    ) as label
    join edge on edge.gateway_customer_id = label.gateway_customer_id
),

-- What lies between two edges, by label. Before the first edge and after the last one lies no window.
part as materialized (
    select customer_number, provider_customer, first_number as number, units, settled_units, event_count, elsewhere_count, elsewhere_units
    from of_label
    where first_number = last_number
    union all
    select
        of_label.customer_number, event.provider_customer,
        width_bucket(event.sent_at, of_label.instants) as number,
        sum(event.quantity)::numeric as units,
        coalesce(sum(event.quantity) filter (where event.complete_at < :settled_before), 0)::numeric as settled_units,
        count(*) as event_count,
        count(*) filter (where event.is_elsewhere) as elsewhere_count,
        coalesce(sum(event.quantity) filter (where event.is_elsewhere), 0)::numeric as elsewhere_units
    from ({sent_events}) as event
    join of_label
        on of_label.gateway_customer_id = event.gateway_customer_id
        and of_label.period_start = event.period_start
        and of_label.period_end = event.period_end
        and of_label.provider_customer is not distinct from event.provider_customer
        and of_label.first_number < of_label.last_number
    where event.gateway_customer_id = any(array(select gateway_customer_id from of_label where first_number < last_number))
        and event.stamped_from >= :earliest
        and event.stamped_from < :latest
    group by of_label.customer_number, event.provider_customer, number
),

-- A window's parts, one by one: to look for those between its edges would look at all parts of its customer, for each window.
of_window as materialized (
    select
        asked.number, asked.provider_customer, edge.customer_number,
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
    max(part.provider_customer) as provider_customer,
    -- 0, 1, or 2 for several.
    case
        when min(part.provider_customer) < max(part.provider_customer) then 2
        else (max(part.provider_customer) is not null)::integer
    end as provider_customer_count,
    sum(part.elsewhere_count)::bigint as elsewhere_count,
    sum(part.elsewhere_units) as elsewhere_units
from of_window as asked
join part
    on part.customer_number = asked.customer_number
    and part.number = asked.part_number
    and (asked.provider_customer is null or part.provider_customer is null or part.provider_customer = asked.provider_customer)
group by asked.number
