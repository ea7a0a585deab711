-- Whether events of a drifted key were deleted or updated since the aggregates were last corrected, or the log was truncated.
-- Index: recon.invalidated_key by key.
-- Binds: ordinal bigint, run_id text
select
    exists (select from recon.invalidated_key where gateway_name is null)
    or exists (
        select
        from recon.counter_drift as drift
        join recon.invalidated_key as note using (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
        where drift.run_id = :run_id
            and drift.ordinal = :ordinal
    )
