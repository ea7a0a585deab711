-- What the log still lacks for the incremental mode, in the order in which it is made, each with the statement that makes it.
-- Invariant: reads the catalog alone. If no row is of kind `required` or `advised`, the incremental mode is safe. Each statement does
-- nothing if another session has run it meanwhile. If the log cannot have the column, the rows say why, and none makes it. While an index
-- of a table is being built, an invalid index of it has no statement: it may be that one. Postgres quotes the names.
-- Binds: refuses_repetitions boolean
with log as materialized (
    select to_regclass('billing_usage_events')::oid as oid
),
part as materialized (
    select
        relation.oid,
        relation.oid::regclass::text as name,
        format('%I.%I', space.nspname, relation.relname) as full_name,
        relation.relname,
        relation.relkind,
        tree.level,
        tree.parent,
        ingest_xid.attnum,
        ingest_xid.atttypid,
        pg_get_expr(filled.adbin, filled.adrelid) as filled_by
    from (
        select oid as relid, 0 as level, null::oid as parent from log where oid is not null
        union all
        select tree.relid::oid, tree.level, tree.parentrelid::oid
        from log
        cross join pg_partition_tree(log.oid) as tree
        where tree.level > 0
    ) as tree
    join pg_class as relation on relation.oid = tree.relid
    join pg_namespace as space on space.oid = relation.relnamespace
    left join pg_attribute as ingest_xid
        on ingest_xid.attrelid = tree.relid and ingest_xid.attname = 'ingest_xid' and not ingest_xid.attisdropped
    left join pg_attrdef as filled on filled.adrelid = tree.relid and filled.adnum = ingest_xid.attnum
),
in_the_way as materialized (
    select name, format('%s is not a plain table, so its rows cannot be given a transaction id', name) as lacks
    from part
    where relkind not in ('r', 'p')
    union all
    select name, format('tables inherit from %s without being partitions of it', name)
    from part
    where relkind = 'r' and exists (select from pg_inherits where inhparent = part.oid)
    union all
    select name, format('%s.ingest_xid is %s, not xid8', name, format_type(atttypid, null))
    from part
    where atttypid <> 'xid8'::regtype
    union all
    select name, format('%s is filled by a subscription, whose deletions and updates fire no trigger', name)
    from part
    where oid in (select srrelid from pg_subscription_rel)
),
key as materialized (
    select
        index.indrelid, index.indexrelid, index.indexrelid::regclass::text as name,
        format('%I.%I', space.nspname, relation.relname) as full_name, leads.on_column,
        index.indisvalid and index.indisready as is_usable,
        index.indnatts = 1 and method.amname = 'btree' as is_plain,
        (select attached.inhparent from pg_inherits as attached where attached.inhrelid = index.indexrelid) as part_of,
        case
            when index.indisvalid then false
            else exists (
                select
                from pg_stat_progress_create_index as build
                join pg_locks as lock on lock.pid = build.pid
                where build.datname = current_database()
                    and lock.locktype = 'relation' and lock.granted and lock.mode = 'ShareUpdateExclusiveLock'
                    and lock.database = (select oid from pg_database where datname = current_database())
                    and lock.relation = index.indrelid
            )
        end as is_being_built
    from part
    join pg_index as index on index.indrelid = part.oid and index.indpred is null
    join pg_class as relation on relation.oid = index.indexrelid
    join pg_namespace as space on space.oid = relation.relnamespace
    join pg_am as method on method.oid = relation.relam and method.amname in ('btree', 'hash')
    join pg_attribute as first on first.attrelid = index.indrelid and first.attnum = index.indkey[0]
    left join pg_attribute as second
        on second.attrelid = index.indrelid and second.attnum = index.indkey[1] and index.indnkeyatts > 1
    cross join lateral (
        select case
            when first.attname = 'ingest_xid' and method.amname = 'btree' then 'ingest_xid'
            when first.attname = 'request_id' or (first.attname, second.attname) = ('gateway_name', 'request_id')
                then 'request_id'
        end as on_column
    ) as leads
    where leads.on_column is not null
),
whole_key as (
    select distinct on (part.oid) part.oid, key.indexrelid, key.name, key.full_name
    from part
    join key on key.indrelid = part.oid
    where part.relkind = 'p' and key.on_column = 'ingest_xid' and key.is_plain
    order by part.oid, key.indexrelid
),
needed_trigger as (
    select
        part.oid,
        part.name,
        part.full_name,
        part.level,
        case when part.level = 0 then 'required' else 'optional' end as kind,
        event.name as event,
        event.bit,
        event.transitions,
        case when not :refuses_repetitions and event.name <> 'truncate' then log.full_name end as argument
    from part
    join part as log on log.level = 0
    cross join (
        values
        ('delete', 8, 'referencing old table as old_rows'),
        ('update', 16, 'referencing old table as old_rows new table as new_rows'),
        ('truncate', 32, '')
    ) as event (name, bit, transitions)
),
trigger_function as (
    select routine.oid
    from pg_proc as routine
    join pg_namespace as space on space.oid = routine.pronamespace
    where space.nspname = 'recon' and routine.proname = 'note_changed_events' and routine.pronargs = 0
)
select kind, lacks, statement, is_concurrent
from (
    select 1 as step, 0 as level, name, 'required' as kind, lacks, null as statement, false as is_concurrent
    from in_the_way
    union all
    select
        step, level, name, kind, lacks, statement, is_concurrent
    from (
        select
            2 as step, level, name, 'required' as kind, format('%s has no column ingest_xid', name) as lacks,
            format('alter table %s add column if not exists ingest_xid xid8', full_name) as statement, false as is_concurrent
        from part
        where level = 0 and attnum is null
        union all
        -- This also changes the existing partitions.
        select
            3, level, name, 'required', format('%s.ingest_xid is not filled with pg_current_xact_id()', name),
            format('alter table %s alter column ingest_xid set default pg_current_xact_id()', full_name), false
        from part
        where filled_by is distinct from 'pg_current_xact_id()'
        union all
        select
            4, part.level, key.name,
            case
                when exists (
                    select from key as other
                    where other.indrelid = key.indrelid and other.on_column = 'ingest_xid' and other.is_usable
                ) then 'optional'
                else 'required'
            end,
            format('index %s on ingest_xid is %s', key.name,
                case when key.is_being_built then 'being built' else 'invalid: its build failed' end),
            case when not key.is_being_built then format('drop index concurrently if exists %s', key.full_name) end, true
        from key
        join part on part.oid = key.indrelid
        where part.relkind = 'r' and key.on_column = 'ingest_xid' and key.is_plain and not key.is_usable
            and key.part_of is null
        union all
        select
            5, level, name, 'required', format('%s has no index on ingest_xid', name),
            format(
                'create index concurrently if not exists %I on %s (ingest_xid)',
                case when octet_length(relname) <= 48 then relname || '_ingest_xid_idx' else 'recon_ingest_xid_' || oid end,
                full_name
            ),
            true
        from part
        where relkind = 'r'
            and not exists (
                select from key where indrelid = part.oid and on_column = 'ingest_xid' and (is_usable or is_being_built)
            )
        union all
        -- So that later partitions have it from the start.
        select
            6, level, name, 'optional', format('partitions of %s that are made later will have no index on ingest_xid', name),
            format(
                'create index if not exists %I on only %s (ingest_xid)',
                case when octet_length(relname) <= 48 then relname || '_ingest_xid_idx' else 'recon_ingest_xid_' || oid end,
                full_name
            ),
            false
        from part
        where relkind = 'p' and not exists (select from key where indrelid = part.oid and on_column = 'ingest_xid')
        union all
        select
            7, part.level, key.name, 'optional', format('index %s is not part of index %s', key.name, whole_key.name),
            format('alter index %s attach partition %s', whole_key.full_name, key.full_name), false
        from whole_key
        join part on part.parent = whole_key.oid
        join lateral (
            select of_part.name, of_part.full_name
            from key as of_part
            where of_part.indrelid = part.oid and of_part.on_column = 'ingest_xid' and of_part.is_plain
                and of_part.part_of is null
                and (of_part.is_usable or part.relkind = 'p')
            order by of_part.indexrelid
            limit 1
        ) as key on true
        where not exists (
            select from key as attached where attached.indrelid = part.oid and attached.part_of = whole_key.indexrelid
        )
        union all
        select
            8, needed.level, needed.name, needed.kind,
            case
                when found.tgname is not null
                    then format('trigger %s on %s is disabled or out of date', found.tgname, needed.name)
                when needed.level = 0 then format('%s does not note when events are %sd', needed.name, needed.event)
                else format('%s does not note when its events are %sd, by its own name', needed.name, needed.event)
            end,
            format(
                'create or replace trigger recon_note_%s after %s on %s %s for each statement '
                || 'execute function recon.note_changed_events(%s)',
                needed.event, needed.event, needed.full_name, needed.transitions, quote_literal(needed.argument)
            ),
            false
        from needed_trigger as needed
        left join pg_trigger as found
            on found.tgrelid = needed.oid and not found.tgisinternal and found.tgname = 'recon_note_' || needed.event
        where not coalesce(
            found.tgfoid = (select oid from trigger_function)
            and found.tgenabled in ('O', 'A')
            and found.tgtype & 127 = needed.bit
            and found.tgqual is null
            and found.tgargs = case
                when needed.argument is null then ''::bytea
                else convert_to(needed.argument, current_setting('server_encoding')) || '\x00'::bytea
            end,
            false
        )
    ) as made
    where not exists (select from in_the_way)
    union all
    select
        9, level, name, 'advised', format('%s has no index on request_id to find repeated ones by', name),
        format('create index concurrently on %s (request_id)', full_name), true
    from part
    where not :refuses_repetitions
        and relkind = 'r'
        and not exists (select from key where indrelid = part.oid and on_column = 'request_id' and is_usable)
) as step
order by step, level, name
