-- Part of other statements: all events of the log, each with what is known of it: whether it is valid (null where that is unknown, which means no), the name
-- under which it is kept (that of its customer, or the empty name where it belongs to no key that could be kept), and the transaction that wrote
-- its row, whatever the application wrote into its columns.
-- Invariant: an invalid event (quantity null, not finite or of a size that overflows a sum; a period that does not end after it begins; no customer, or
-- one whose name is too long for an index) is never summed.
-- Index: none of its own; the predicates of the statement around it reach the table.
-- Binds: quantity_is_numeric boolean
select
    event.*,
    event.quantity is not null
    and (not :quantity_is_numeric or (event.quantity > -1e1000 and event.quantity < 1e1000)) -- which NaN and infinities are not
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
