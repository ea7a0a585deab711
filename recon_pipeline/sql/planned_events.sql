-- Part of other statements: what would become of each event of a whole source.
-- Index: none; it is read as a whole.
select * from pg_temp.planned_event
