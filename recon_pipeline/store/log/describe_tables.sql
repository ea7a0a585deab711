-- Some tables of the application as the catalog describes them: columns, unique keys, row security, our privileges.
-- Invariant: looks names up through search_path exactly as our statements do; returns no row for a table that does not exist.
-- Binds: table_names text[]
select
    wanted.name as wanted,
    relation.oid::regclass::text as name,
    relation.relkind::text as kind,
    row_security_active(relation.oid) as row_security_active,
    -- The commands that policies allow us on every row. Only policies for all roles or for ours by name count, since a membership can end
    -- while nobody has the table locked. Beside a restrictive policy nothing is certain.
    (
        select coalesce(jsonb_agg(command), '[]')
        from unnest(array['r', 'a', 'w']) as command
        where relation.relkind in ('r', 'p')
            and not exists (
                select from pg_policy as policy where policy.polrelid = relation.oid and not policy.polpermissive
            )
            and exists (
                select
                from pg_policy as policy
                where policy.polrelid = relation.oid
                    and policy.polcmd in ('*', command)
                    and policy.polroles && array[0::oid, (select oid from pg_roles where rolname = current_user)]
                    and (command = 'a' or pg_get_expr(policy.polqual, policy.polrelid) = 'true')
                    and (
                        command = 'r'
                        or pg_get_expr(coalesce(policy.polwithcheck, policy.polqual), policy.polrelid) = 'true'
                    )
            )
    ) as unrestricted_commands,
    (
        select min(polname::text) from pg_policy where polrelid = relation.oid and not polpermissive
    ) as restrictive_policy,
    (
        with recursive part (oid) as (
            select relation.oid
            union
            select inherits.inhrelid from pg_inherits as inherits join part on part.oid = inherits.inhparent
        )
        select min(foreign_part.oid::regclass::text)
        from part
        join pg_class as foreign_part on foreign_part.oid = part.oid and foreign_part.relkind = 'f'
    ) as foreign_part,
    (
        select min(inherits.inhrelid::regclass::text)
        from pg_inherits as inherits
        where inherits.inhparent = relation.oid and relation.relkind <> 'p'
    ) as heir,
    not exists (
        select
        from pg_class as leaf
        where leaf.oid in (
                select relation.oid where relation.relkind = 'r'
                union all
                select relid from pg_partition_tree(relation.oid) where isleaf
            )
            and not exists (
                select
                from pg_index as index
                join pg_class as of_index on of_index.oid = index.indexrelid
                join pg_am as method on method.oid = of_index.relam and method.amname = 'btree'
                join pg_attribute as first on first.attrelid = leaf.oid and first.attnum = index.indkey[0]
                left join pg_attribute as second
                    on second.attrelid = leaf.oid and second.attnum = index.indkey[1] and index.indnkeyatts > 1
                where index.indrelid = leaf.oid and index.indisvalid and index.indpred is null
                    and (
                        first.attname = 'period_start'
                        or (first.attname, second.attname) = ('usage_type', 'period_start')
                    )
            )
    ) as finds_periods,
    (
        select jsonb_object_agg(attname, jsonb_build_object(
            'type', format_type(atttypid, null), 'not_null', attnotnull, 'has_default', atthasdef or attidentity <> '',
            'digits', case when atttypid = 'timestamptz'::regtype and atttypmod >= 0 then atttypmod else 6 end
        ))
        from pg_attribute
        where attrelid = relation.oid and attnum > 0 and not attisdropped
    ) as columns,
    (
        select coalesce(jsonb_agg(key.columns), '[]')
        from pg_index as index
        -- An expression stands by its text: no column is named so, and the key admits what differs in it.
        cross join lateral (
            select jsonb_agg(coalesce(attname, pg_get_indexdef(index.indexrelid, place, true)) order by attname) as columns
            from generate_series(1, index.indnkeyatts) as place
            left join pg_attribute on attrelid = index.indrelid and attnum = nullif(index.indkey[place - 1], 0)
        ) as key
        where index.indrelid = relation.oid
            and index.indisunique and index.indisvalid and index.indimmediate
            and index.indpred is null
    ) as unique_keys,
    (
        select coalesce(jsonb_agg(indexed.attname), '[]')
        from (
            select attribute.attname
            from pg_index as index
            join pg_attribute as attribute
                on attribute.attrelid = index.indrelid and attribute.attnum = index.indkey[0]
            where index.indisvalid and index.indpred is null
                and (
                    index.indrelid = relation.oid
                    or index.indrelid in (select relid from pg_partition_tree(relation.oid) where isleaf)
                )
            group by attribute.attname
            having bool_or(index.indrelid = relation.oid)
                or count(distinct index.indrelid) = (select count(*) from pg_partition_tree(relation.oid) where isleaf)
        ) as indexed
    ) as leading_index_columns,
    (
        select min(index.indexrelid::regclass::text)
        from pg_index as index
        where index.indrelid = relation.oid
            and index.indisvalid
            and index.indkey[0] = (select attnum from pg_attribute where attrelid = relation.oid and attname = 'period_start')
            and not (select attnum from pg_attribute where attrelid = relation.oid and attname = 'gateway_customer_id')
            = any(index.indkey)
    ) as period_index_without_customer,
    (
        select coalesce(jsonb_agg(distinct attribute.attname), '[]')
        from pg_constraint as rule
        join pg_attribute as attribute on attribute.attrelid = rule.conrelid and attribute.attnum = any(rule.conkey)
        where rule.conrelid = relation.oid and rule.contype = 'c' and rule.convalidated
    ) as checked_columns,
    has_table_privilege(relation.oid, 'select') as can_select,
    has_table_privilege(relation.oid, 'insert') as can_insert,
    has_table_privilege(relation.oid, 'delete') as can_delete,
    (
        select coalesce(jsonb_agg(attname), '[]')
        from pg_attribute
        where attrelid = relation.oid and attnum > 0 and not attisdropped
            and has_column_privilege(relation.oid, attnum, 'update')
    ) as updatable_columns
from unnest(cast(:table_names as text[])) as wanted (name)
join pg_class as relation on relation.oid = to_regclass(wanted.name)
