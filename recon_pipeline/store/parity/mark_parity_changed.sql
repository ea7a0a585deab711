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
    select gateway_customer_id from taken
    union
    select gateway_customer_id
    from recon.invalidated_key
    where gateway_name = :gateway_name
        and usage_type = :usage_type
)
update recon.parity_key as key
set news_at = :began
from changed
where key.gateway_name = :gateway_name
    and key.usage_type = :usage_type
    and key.gateway_customer_id = changed.gateway_customer_id
