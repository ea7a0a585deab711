-- Inserts so many events into the log, in the order in which they happened, as an application leaves it behind.
-- Invariant: the same numbers and seed give the same events except for their ids. Every key has at least one event, and a few customers
-- have most of the rest. Each customer has six periods of a month, which start on a day of its own.
-- Index: none; it fills an empty table.
insert into billing_usage_events (
    gateway_name, gateway_customer_id, usage_type, request_id, quantity, period_start, period_end, event_timestamp, created_at
)
select
    'stripe', gateway_customer_id, 'remote_commands', 'req_' || event_number, 1 + event_number % 3,
    period_start, period_end, happened_at, happened_at
from (
    select
        drawn.event_number,
        'cus_' || lpad(customer::text, 7, '0') as gateway_customer_id,
        period_start,
        period_end,
        period_start + (period_end - period_start) * drawn.moment as happened_at
    from (
        select
            event_number,
            case
                when event_number <= :counters then event_number - 1
                else least(
                    trunc(((:counters + 5) / 6) * power(pg_temp.uniform(event_number, :seed), 2)) * 6
                    + trunc(6 * pg_temp.uniform(event_number, :seed + 1)),
                    :counters - 1
                )::bigint
            end as key_number,
            pg_temp.uniform(event_number, :seed + 2) as moment
        from generate_series(1, cast(:events as bigint)) as event_number
    ) as drawn
    cross join lateral (select drawn.key_number / 6 as customer, drawn.key_number % 6 as period) as of_key
    cross join lateral (
        select
            cast(:first_start as timestamptz) + make_interval(months => period::int, days => (customer % 28)::int) as period_start,
            cast(:first_start as timestamptz) + make_interval(months => period::int + 1, days => (customer % 28)::int) as period_end
    ) as of_period
) as event
order by happened_at
