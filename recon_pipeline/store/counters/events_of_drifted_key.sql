-- Part of sum_events: the events of one drifted key below a horizon, of transactions that have all ended, so that their sum is final; and those that carry its
-- period written in another way.
-- Index: billing_usage_events by gateway_customer_id.
-- Binds: end_is_in_key boolean, horizon xid8, ordinal bigint, run_id text
countable.gateway_customer_id = (select gateway_customer_id from recon.counter_drift where run_id = :run_id and ordinal = :ordinal)
and (countable.ingest_xid >= cast(:horizon as xid8)) is not true
and (countable.gateway_name, countable.usage_type) = (select gateway_name, usage_type from recon.counter_drift where run_id = :run_id and ordinal = :ordinal)
and countable.period_start >= (select period_start - interval '1 second' from recon.counter_drift where run_id = :run_id and ordinal = :ordinal)
and countable.period_start <= (select period_start + interval '1 second' from recon.counter_drift where run_id = :run_id and ordinal = :ordinal)
and (
    not :end_is_in_key
    or countable.period_end = (select period_end from recon.counter_drift where run_id = :run_id and ordinal = :ordinal)
    or abs(
        extract(epoch from countable.period_end)
        - (select extract(epoch from period_end) from recon.counter_drift where run_id = :run_id and ordinal = :ordinal)
    ) <= 1
)
