-- What a backfill needs beyond what a run needs: to insert events, a temporary table, columns of the right types.
-- Invariant: looks the log up through search_path, as the insert does.
select
    has_table_privilege(log.oid, 'insert') as can_insert,
    has_database_privilege(current_database(), 'temporary') as can_stage,
    current_user::text as role,
    current_database()::text as database,
    log.oid::regclass::text as log,
    (
        select format_type(atttypid, atttypmod) from pg_attribute where attrelid = log.oid and attname = 'quantity'
    ) as quantity_type,
    not exists (
        select
        from pg_constraint as rule
        join pg_attribute as quantity on quantity.attrelid = rule.conrelid and quantity.attname = 'quantity'
        where rule.conrelid = log.oid
            and rule.contype = 'c'
            and rule.conkey = array[quantity.attnum]
            and pg_get_constraintdef(rule.oid) ~ '^CHECK \(\(quantity > (0|\(0\)::[a-z]+)\)\)'
    ) as takes_zero,
    (
        select format_type(atttypid, null) from pg_attribute
        where attrelid = log.oid and attname = 'metadata' and not attisdropped
    ) as metadata_type
from (select to_regclass('billing_usage_events') as oid) as log
