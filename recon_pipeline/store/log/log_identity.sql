-- Which log this is: server, database, tables and partitions.
-- Invariant: another text for a restored dump, a new cluster, a recreated table, and a partition that was added or removed; also after rows
-- may have come without a transaction id or gone without a note (column recreated, default or trigger off for a while). After anything else
-- the text is the same.
-- Index: the catalog's own.
select
    concat_ws(
        ' ',
        'server', case
            when has_function_privilege('pg_control_system()', 'execute')
                then (select system_identifier::text from pg_control_system())
            else 'unknown'
        end,
        'database', (select oid from pg_database where datname = current_database()),
        'events', to_regclass('billing_usage_events')::oid,
        'partitions', (
            select string_agg(relid::oid::text, ',' order by relid::oid)
            from pg_partition_tree(to_regclass('billing_usage_events')) where isleaf
        ),
        'ingest_xid', (
            select md5(string_agg(concat_ws(':', ingest_xid.attrelid, ingest_xid.attnum, filled.oid), ',' order by ingest_xid.attrelid))
            from (
                select to_regclass('billing_usage_events') as relid
                union
                select relid from pg_partition_tree(to_regclass('billing_usage_events'))
            ) as part
            join pg_attribute as ingest_xid
                on ingest_xid.attrelid = part.relid and ingest_xid.attname = 'ingest_xid' and not ingest_xid.attisdropped
            left join pg_attrdef as filled on filled.adrelid = ingest_xid.attrelid and filled.adnum = ingest_xid.attnum
        ),
        'triggers', (
            select md5(string_agg(concat_ws(':', oid, xmin, tgenabled), ',' order by oid))
            from pg_trigger
            where tgrelid = to_regclass('billing_usage_events') and tgname like 'recon\_note\_%'
        ),
        'counters', to_regclass('billing_usage_counters')::oid
    ) as identity
