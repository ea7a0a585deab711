-- The tables of schema recon that our role lacks a privilege on which a run needs.
-- Invariant: reads the catalog alone, so that it answers whatever is missing; the ledger is only ever added to.
select relation.relname
from pg_class as relation
cross join unnest(
    case relation.relname
        when 'schema_version' then array['select']
        when 'counter_repair' then array['select', 'insert']
        when 'control' then array['select', 'insert']
        when 'month_seal' then array['select', 'insert']
        when 'sealed_counter' then array['select', 'insert']
        else array['select', 'insert', 'update', 'delete']
    end
) as needed (privilege)
where relation.relnamespace = to_regnamespace('recon')
    and relation.relkind in ('r', 'p')
    and not has_table_privilege(relation.oid, needed.privilege)
group by relation.relname
order by relation.relname
