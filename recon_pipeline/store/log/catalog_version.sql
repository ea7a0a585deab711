-- Whether the log can be trusted at this snapshot, a version of the application's tables in the catalog, and the version of schema recon.
-- Invariant: whatever changes a column, default, index, trigger, partition, privilege, policy or subscription of these tables writes a row of the
-- catalog. The version is made of the transactions that wrote these rows, so while it stays the same nothing needs to be read again. Names
-- are looked up through search_path, exactly as our statements do.
-- Index: the catalog's own, by relation.
with recursive relation (oid) as (
    select to_regclass(wanted.name)::oid
    from unnest(array['billing_usage_events', 'billing_usage_counters', 'billing_subscriptions']) as wanted (name)
    where to_regclass(wanted.name) is not null
    union
    select inherits.inhrelid from pg_inherits as inherits join relation on relation.oid = inherits.inhparent
),
-- An array, which the planner looks up by index, whatever its statistics of the catalog.
ours as materialized (
    select array_agg(oid) as oids, bool_or(row_security_active(oid)) as is_filtered from relation
)
select
    (select max(version_num) from recon.schema_version) as schema_version,
    pg_is_in_recovery() as is_standby,
    coalesce((select is_filtered from ours), false) as is_filtered,
    concat_ws(
        ' ',
        current_user, current_database(), current_setting('search_path'),
        case
            when has_function_privilege('pg_control_system()', 'execute')
                then (select system_identifier::text from pg_control_system())
        end,
        (
            select md5(string_agg(concat_ws(':', source, oid, number, written_by), ',' order by source, oid, number))
            from (
                select 1 as source, oid, 0 as number, xmin as written_by
                from pg_class
                where oid = any((select oids from ours)::oid[])
                union all
                select 2, attrelid, attnum, xmin
                from pg_attribute
                where attrelid = any((select oids from ours)::oid[]) and attnum > 0
                union all
                select 3, adrelid, adnum, xmin
                from pg_attrdef
                where adrelid = any((select oids from ours)::oid[])
                union all
                select 4, indexrelid, 0, xmin
                from pg_index
                where indrelid = any((select oids from ours)::oid[])
                union all
                select 5, oid, 0, xmin
                from pg_trigger
                where tgrelid = any((select oids from ours)::oid[])
                union all
                select 6, oid, 0, xmin
                from pg_policy
                where polrelid = any((select oids from ours)::oid[])
                union all
                select 7, srrelid, 0, xmin
                from pg_subscription_rel
                where srrelid = any((select oids from ours)::oid[])
            ) as fact
        )
    ) as version
