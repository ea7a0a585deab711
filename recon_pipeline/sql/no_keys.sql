-- Part of other statements: no list of changed keys, since all of them are looked at.
select null::text as gateway_customer_id, null::timestamptz as period_start, null::timestamptz as period_end
where false
