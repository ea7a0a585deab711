-- Which database this is, whatever host name or pooler a connection uses.
-- Invariant: another text for another database, also for a dump restored elsewhere.
-- Index: the catalog's own.
select
    concat_ws(
        '/',
        case
            when has_function_privilege('pg_control_system()', 'execute')
                then (select system_identifier::text from pg_control_system())
            else 'unknown'
        end,
        datname,
        oid
    ) as database_id
from pg_database
where datname = current_database()
