-- Makes some counters drift.
-- Index: none; they are drawn from all counters.
update billing_usage_counters
set usage_count = usage_count + 7
where id in (
    select id
    from billing_usage_counters
    order by hashtext(id::text || cast(:seed as text))
    limit :keys
)
