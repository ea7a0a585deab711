-- Takes the notes of customers whose events were deleted or updated, and marks their keys; those that runs have not
-- taken yet are marked, too.
-- Invariant: what a note is of is visible to each later statement. A note that another transaction relies on stays.
-- Index: recon.parity_note and recon.invalidated_key are small; the primary key of recon.parity_key.
-- Binds: began timestamptz, gateway_name text, usage_type text
with locked as materialized (
    select id
    from recon.parity_note
    where gateway_name = :gateway_name
        and usage_type = :usage_type
        and gateway_customer_id is not null
    for update skip locked
),
taken as (
    delete from recon.parity_note
    where id = any(array(select id from locked))
    returning gateway_customer_id
),
changed as materialized (
    select cast(:gateway_name as text) as gateway_name, cast(:usage_type as text) as usage_type, gateway_customer_id from taken
    union
    select gateway_name, usage_type, gateway_customer_id
    from recon.invalidated_key
    where gateway_name = :gateway_name
        and usage_type = :usage_type
)
update recon.parity_key as key
set news_at = :began
from changed
-- The usage comes from `changed`: if it stood here, a planner that expects few keys of it would read all of them for each.
where (key.gateway_name, key.usage_type, key.gateway_customer_id)
    = (changed.gateway_name, changed.usage_type, changed.gateway_customer_id)
