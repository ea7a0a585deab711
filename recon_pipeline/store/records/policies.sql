-- If the billing tables have row level security, policies let the role of the product see every row, which no restrictive policy may narrow.
-- Invariant: nobody else sees more. A member of that role would, so where policies bind the owner too (force row level security), the owner
-- leaves the role first, or no policy is created. Run it as the owner of the billing tables.
do $row_level_security$
declare
    policies_bind_us constant boolean := exists (
        select from pg_class
        where
            oid in (
                to_regclass('billing_usage_events'), to_regclass('billing_usage_counters'), to_regclass('billing_subscriptions')
            )
            and relforcerowsecurity
    ) and not (select rolsuper or rolbypassrls from pg_roles where rolname = current_user);
begin
    if policies_bind_us and pg_has_role('recon_pipeline', 'usage') then
        begin
            revoke recon_pipeline from current_user;
        exception when insufficient_privilege then
            null;  -- who granted it has to revoke it, which the next test finds
        end;
        if pg_has_role('recon_pipeline', 'usage') then
            raise warning using
                message = format(
                    'No policy was created: row level security is forced, and %I is a member of recon_pipeline, so it would see every row.',
                    current_user
                ),
                hint = format(
                    'Let a DBA run: revoke recon_pipeline from %I; Then, as %I, what recon doctor advises. Until then runs are refused.',
                    current_user, current_user
                );
            return;
        end if;
    end if;
    if (select relrowsecurity from pg_class where oid = to_regclass('billing_usage_events')) then
        create policy recon_pipeline on billing_usage_events for select to recon_pipeline using (true);
    end if;
    if (select relrowsecurity from pg_class where oid = to_regclass('billing_usage_counters')) then
        create policy recon_pipeline on billing_usage_counters for all to recon_pipeline using (true) with check (true);
    end if;
    if (select relrowsecurity from pg_class where oid = to_regclass('billing_subscriptions')) then
        create policy recon_pipeline on billing_subscriptions for select to recon_pipeline using (true);
    end if;
end
$row_level_security$;
