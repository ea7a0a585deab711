-- The least that the product needs, for a role of its own. Replace the password; run as the owner of the tables.
create role recon_pipeline login password 'choose-one' bypassrls;
create schema if not exists recon authorization recon_pipeline;
grant select on billing_usage_events, billing_subscriptions to recon_pipeline;
grant select, insert on billing_usage_counters to recon_pipeline;
grant update (usage_count, updated_at) on billing_usage_counters to recon_pipeline;
