-- Part of other statements: the rows of an extent whose counters follow the log, and not a seal or a count in the lake; in any table.
-- Index: as {in_extent} says.
-- Uses: in_extent
-- Binds: sealed_months timestamptz[], sealed_until timestamptz[]
{in_extent}
and recon.follows_log(period_start, period_end, cast(:sealed_months as timestamptz[]), cast(:sealed_until as timestamptz[]))
