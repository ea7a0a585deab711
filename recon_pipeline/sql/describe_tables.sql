-- Some tables of the application as the catalog knows them: columns, unique keys, row security, our privileges.
-- Invariant: looks names up through search_path exactly as our statements do; no row where there is no such table.
select
    wanted.name as wanted,
    relation.oid::regclass::text as name,
    relation.relkind::text as kind,
    row_security_active(relation.oid) as row_security_active,
    (
        select jsonb_object_agg(attname, jsonb_build_object(
            'type', format_type(atttypid, null), 'not_null', attnotnull, 'has_default', atthasdef or attidentity <> ''
        ))
        from pg_attribute
        where attrelid = relation.oid and attnum > 0 and not attisdropped
    ) as columns,
    (
        select coalesce(jsonb_agg(key.columns), '[]')
        from pg_index as index
        cross join lateral (
            select jsonb_agg(attname order by attname) as columns
            from pg_attribute
            where attrelid = index.indrelid
                and attnum = any(index.indkey[0:index.indnkeyatts - 1])
        ) as key
        where index.indrelid = relation.oid
            and index.indisunique and index.indisvalid and index.indimmediate
            and index.indpred is null and index.indexprs is null
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
