-- Whether the log has anything that was not part of what was verified: new events, keys whose events were deleted or updated, or keys
-- that a run left alone because of a hold.
-- Index: ingest_xid; recon.invalidated_key by usage; the primary key of recon.held_key. Stops at the first row.
select
    -- In order of the index, so that the planner takes it whatever the statistics say of a column that was just added.
    exists (
        select
        from (
            select gateway_name, usage_type, period_start
            from billing_usage_events
            where ingest_xid >= cast(:verified_below as xid8)
            order by ingest_xid
            offset 0
        ) as event
        where gateway_name = :gateway_name
            and usage_type = :usage_type
            and period_start >= :start
            and period_start < :end
    )
    or exists (
        select from recon.invalidated_key where gateway_name = :gateway_name and usage_type = :usage_type
    )
    or exists (
        select
        from recon.held_key
        where gateway_name = :gateway_name
            and usage_type = :usage_type
            and period_start >= :start
            and period_start < :end
    )
