-- Part of other statements: the keys with an event, or with a deletion or an update of one, that was not part of what was verified, and those
-- that a run left alone because of a hold.
-- Index: ingest_xid; recon.invalidated_key by usage; the primary key of recon.held_key.
select gateway_customer_id, period_start, period_end
from billing_usage_events
where ingest_xid >= cast(:verified_below as xid8)
    -- A case, so that the planner reads them by ingest_xid alone, whatever the statistics say of a log that just grew.
    and case
        when gateway_name = :gateway_name
            and usage_type = :usage_type
            and period_start >= :start
            and period_start < :end
            and gateway_customer_id is not null
            and (:every_customer or gateway_customer_id = any(:customers))
            then true
    end
union
select gateway_customer_id, period_start, period_end
from recon.invalidated_key
where gateway_name = :gateway_name
    and usage_type = :usage_type
    and period_start >= :start
    and period_start < :end
    and (:every_customer or gateway_customer_id = any(:customers))
union
select gateway_customer_id, period_start, period_end
from recon.held_key
where gateway_name = :gateway_name
    and usage_type = :usage_type
    and period_start >= :start
    and period_start < :end
    and (:every_customer or gateway_customer_id = any(:customers))
