-- Keeps what would become of each event of a whole source, to be counted in several ways; gone with the transaction.
-- Index: as {planned} says.
create temporary table planned_event on commit drop as
{planned}
