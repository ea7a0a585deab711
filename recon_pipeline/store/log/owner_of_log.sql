-- Who owns the log, whether that role can name the function of the triggers, and whether we may let it.
-- Invariant: reads the catalog alone. The statement lets the owner use schema recon; its tables stay closed.
select
    owner.rolname as owner,
    case
        when not coalesce(has_schema_privilege(owner.oid, to_regnamespace('recon')::oid, 'usage'), false)
            then format('grant usage on schema recon to %I', owner.rolname)
    end as missing_grant,
    coalesce(
        (select pg_has_role(nspowner, 'usage') from pg_namespace where nspname = 'recon'), false
    ) as is_ours_to_grant
from pg_class as log
join pg_roles as owner on owner.oid = log.relowner
where log.oid = to_regclass('billing_usage_events')
