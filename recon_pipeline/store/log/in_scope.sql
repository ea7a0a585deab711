-- Part of other statements: the rows of all metered usages of a run, in any table.
-- Index: none of its own.
-- Binds: gateway_names text[], usage_types text[]
(gateway_name, usage_type) in (select * from unnest(cast(:gateway_names as text[]), cast(:usage_types as text[])))
