-- Inserts events that an application knows and the log does not: of the customers and the months of fill_events, in random order.
-- Invariant: the same numbers and seed give the same events, another seed gives others.
-- Index: none; it fills an empty table.
insert into pg_temp.late_event
select
    'stripe', 'cus_' || lpad(customer::text, 7, '0'), 'remote_commands', md5(:seed || ' ' || event_number)::uuid::text,
    1 + event_number % 3, period_start + (period_end - period_start) * pg_temp.uniform(event_number, :seed + 2),
    period_start, period_end, 'dev_' || customer % 977
from (
    select
        event_number,
        trunc(cast(:customers as integer) * power(pg_temp.uniform(event_number, :seed), 2))::integer as customer,
        trunc(6 * pg_temp.uniform(event_number, :seed + 1))::integer as period
    from generate_series(1, cast(:rows as bigint)) as event_number
) as drawn
cross join lateral (
    select
        cast(:first_start as timestamptz) + make_interval(months => period, days => customer % 28) as period_start,
        cast(:first_start as timestamptz) + make_interval(months => period + 1, days => customer % 28) as period_end
) as of_period
