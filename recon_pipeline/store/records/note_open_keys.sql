-- Remembers which keys of a run's months do not count as verified, and why; forgets those that it saw and that match.
-- Invariant: the caller holds the row of recon.event_log, and notes in the same transaction what counts as verified. A key that was opened at or above the run's oldest
-- transaction was perhaps not seen, and stays.
-- Index: the primary key of recon.open_key; open keys are few.
-- Binds: end timestamptz, gateway_name text, open_customers text[], open_errors text[], open_period_ends text[]
-- Binds: open_period_starts text[], open_reasons text[], seen_below xid8, start timestamptz, usage_type text
with mismatching as materialized (
    select gateway_customer_id, period_start::timestamptz as period_start, period_end::timestamptz as period_end, reason, error
    from unnest(
        cast(:open_customers as text[]), cast(:open_period_starts as text[]), cast(:open_period_ends as text[]),
        cast(:open_reasons as text[]), cast(:open_errors as text[])
    ) as key (gateway_customer_id, period_start, period_end, reason, error)
),
matching as (
    delete from recon.open_key
    where gateway_name = :gateway_name
        and usage_type = :usage_type
        and period_start >= :start
        and period_start < :end
        and noted_xid < cast(:seen_below as xid8)
        and (gateway_customer_id, period_start, period_end)
        not in (select gateway_customer_id, period_start, period_end from mismatching)
)
insert into recon.open_key as open (gateway_name, usage_type, gateway_customer_id, period_start, period_end, reason, error)
select :gateway_name, :usage_type, gateway_customer_id, period_start, period_end, reason, error
from mismatching
order by gateway_customer_id, period_start, period_end
on conflict (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
do update set reason = excluded.reason, error = excluded.error, noted_xid = excluded.noted_xid
