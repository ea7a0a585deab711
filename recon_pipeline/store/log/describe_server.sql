-- What kind of server this is, and our role on it.
-- Invariant: reads no table, so it also works where nothing is installed.
select
    current_setting('server_version_num')::int as version,
    current_setting('server_version') as version_name,
    pg_is_in_recovery() as is_standby,
    current_user as role,
    current_database() as database,
    current_setting('search_path') as search_path,
    current_setting('transaction_read_only')::boolean as is_read_only,
    has_database_privilege(current_database(), 'create') as can_create_schema,
    to_regnamespace('recon') is not null as has_schema,
    coalesce(has_schema_privilege(to_regnamespace('recon')::oid, 'usage'), false) as can_use_schema,
    extract(epoch from clock_timestamp())::float8 as clock_seconds
