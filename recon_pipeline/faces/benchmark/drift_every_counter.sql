-- Makes every counter drift.
update billing_usage_counters set usage_count = usage_count + 1
