-- Part of other statements: the keys that are given, as rows; none where every key of the extent is meant.
-- Binds: customers_given text[], period_ends_given text[], period_starts_given text[]
select gateway_customer_id, period_start::timestamptz as period_start, period_end::timestamptz as period_end
from unnest(cast(:customers_given as text[]), cast(:period_starts_given as text[]), cast(:period_ends_given as text[]))
    as key (gateway_customer_id, period_start, period_end)
