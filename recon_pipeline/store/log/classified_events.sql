-- Part of other statements: all events of the log, each with three facts: whether it is valid (null means no); the name under which it is
-- kept (that of its customer, or the empty name if its key cannot be kept); and the transaction that wrote its row, whatever the
-- application wrote into its columns.
-- Invariant: an invalid event (quantity null, not finite or so large that a sum overflows; a period that does not end after it begins; no
-- customer, or one whose name is too long for an index) is never summed.
-- Index: none of its own; the predicates of the statement around it reach the table.
-- Binds: quantity_is_numeric boolean
select
    event.*,
    event.quantity is not null
    and (not :quantity_is_numeric or (event.quantity > -1e1000 and event.quantity < 1e1000)) -- false for NaN and infinities
    and event.period_end > event.period_start
    and recon.fits_index(event.gateway_customer_id) as is_valid,
    case
        when recon.fits_index(event.gateway_customer_id) and event.period_end is not null then event.gateway_customer_id
        else ''
    end as kept_name,
    event.xmin as event_xid,
    event.tableoid as event_table,
    event.ctid as event_place
from billing_usage_events as event
