-- Sets one counter that is unchanged since it was picked.
-- Invariant: updated_at stays, as it does when an increment is lost.
-- Index: the unique key of billing_usage_counters.
update billing_usage_counters
set usage_count = %(after)s
where gateway_name = %(gateway_name)s
  and gateway_customer_id = %(gateway_customer_id)s
  and usage_type = %(usage_type)s
  and period_start = %(period_start)s
  and period_end = %(period_end)s
  and usage_count = %(before)s
