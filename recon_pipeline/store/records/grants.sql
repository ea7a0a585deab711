-- The least privileges that the product needs, as a role of its own. Choose a password. Run this as the owner of the billing tables, who
-- needs createrole for the first block, unless a DBA has created the role and granted it to the owner. An existing role keeps its password.
do $role$
begin
    if to_regrole('recon_pipeline') is null then
        create role recon_pipeline login password 'choose-one';
    end if;
    grant recon_pipeline to current_user;
exception when insufficient_privilege then
    if to_regrole('recon_pipeline') is null or not pg_has_role('recon_pipeline', 'member') then
        raise insufficient_privilege using
            message = format('%I may not create the role recon_pipeline, or grant it to itself. Nothing was changed.', current_user),
            hint = format(
                'Let a DBA run: create role recon_pipeline login password ''choose-one''; (unless it is there) '
                'grant recon_pipeline to %I; then run this again.', current_user
            );
    end if;
end
$role$;
create schema recon authorization recon_pipeline;
grant usage on schema recon to current_user;
grant select on billing_usage_events to recon_pipeline;
grant select, insert on billing_usage_counters to recon_pipeline;
grant update (usage_count, updated_at) on billing_usage_counters to recon_pipeline;
do $subscriptions$
begin
    if to_regclass('billing_subscriptions') is not null then
        grant select on billing_subscriptions to recon_pipeline;
    end if;
end
$subscriptions$;
