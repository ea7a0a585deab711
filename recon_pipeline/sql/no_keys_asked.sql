-- Part of repair_locked_counters: nothing is asked of the aggregates.
select locked.gateway_customer_id
from locked
where false
