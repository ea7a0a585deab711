-- Takes the notes of keys whose events were deleted or updated, and opens these keys: the next statement of this transaction sums them
-- again, and every run covers them until they match. The open key keeps what, according to the notes, left the log before a sum counted it.
-- Smaller credits are kept only if an event left, because an update that raises a sum is followed at once. Notes of months that are not
-- built are deleted.
-- Invariant: each note is locked before it is taken. A transaction that changes events of a key that is noted already relies on that note
-- and locks it too (recon.note_changed_events). So when the note is ours, that transaction has ended, and the next statement sees what it
-- did. A note that another transaction relies on stays for the next run: no session waits.
-- Index: the primary key of recon.invalidated_key.
with locked as materialized (
    select id
    from recon.invalidated_key
    where gateway_name is not null
    for update skip locked
),
taken as (
    delete from recon.invalidated_key
    -- An array, so that each is looked up once by index: a subquery that locks could run again for each row.
    where id = any(array(select id from locked))
    returning gateway_name, usage_type, gateway_customer_id, period_start, period_end, events_left, units_left, credits_left
)
insert into recon.open_key as open (
    gateway_name, usage_type, gateway_customer_id, period_start, period_end, reason, events_left, units_left, credits_left
)
select
    gateway_name, usage_type, gateway_customer_id, period_start, period_end, 'changed',
    sum(events_left), sum(units_left), coalesce(sum(credits_left) filter (where events_left > 0), 0)
from taken
where recon.fits_index(gateway_customer_id)
    and (gateway_name, usage_type, recon.billing_month(period_start))
    in (select gateway_name, usage_type, partition from recon.usage_month)
group by gateway_name, usage_type, gateway_customer_id, period_start, period_end
order by gateway_name, usage_type, gateway_customer_id, period_start, period_end
on conflict (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
do update set
    noted_xid = excluded.noted_xid,
    events_left = open.events_left + excluded.events_left,
    units_left = open.units_left + excluded.units_left,
    credits_left = open.credits_left + excluded.credits_left
returning gateway_name, usage_type, recon.billing_month(period_start) as partition, gateway_customer_id = '' as is_nameless
