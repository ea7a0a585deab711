"""Which keys have news for the comparison with a provider's meters; the log's side is read when a key is compared."""

from alembic import op

revision = "0023"
down_revision = "0022"

_NEWS = """
alter table recon.parity_key
    drop column log_units,
    drop column settled_units,
    drop column noted_at,
    add column news_at timestamptz,
    add column latest_at timestamptz,
    alter column provider_customer_count set default 0,
    alter column event_count set default 0,
    alter column elsewhere_count set default 0,
    alter column elsewhere_units set default 0;
create index parity_key_by_provider on recon.parity_key (provider_customer) where provider_customer is not null;
comment on table recon.parity_key is
    'The keys that are compared with a meter: which have news in the log, and the last comparison of each.';
comment on column recon.parity_key.news_at is 'The beginning of the comparison that last found news of it in the log.';
comment on column recon.parity_key.latest_at is
    'No event that was news has a later time; until that time has come, it lies in no window.';

create table recon.parity_month (
    gateway_name text not null,
    usage_type text not null,
    partition text not null,
    looked_below xid8,
    looked_at timestamptz not null,
    looked_as text not null,
    primary key (gateway_name, usage_type, partition)
);
comment on table recon.parity_month is 'Up to where the log was looked at for news of the keys of a month.';
comment on column recon.parity_month.looked_below is
    'Events of transactions below it are no news any more; null: the log carries no transaction ids.';
comment on column recon.parity_month.looked_at is 'The beginning of the comparison that looked last.';
comment on column recon.parity_month.looked_as is
    'Which log it was, and how its events were sent; if that is another now, every key has news.';

create table recon.parity_note (
    id bigint generated always as identity primary key,
    gateway_name text not null,
    usage_type text not null,
    gateway_customer_id text
);
create index parity_note_by_customer on recon.parity_note (gateway_customer_id);
comment on table recon.parity_note is
    'Customers whose events were deleted or updated since a comparison looked; null: the log was truncated.';

create function recon.keep_note_for_parity() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $keep$
begin
    insert into recon.parity_note (gateway_name, usage_type, gateway_customer_id)
    select taken.gateway_name, taken.usage_type, taken.gateway_customer_id
    from (
        select distinct gateway_name, usage_type, gateway_customer_id
        from old_notes
        where gateway_name is not null
        union
        select distinct gateway_name, usage_type, null
        from recon.parity_month
        where exists (select from old_notes where gateway_name is null)
    ) as taken
    left join lateral (
        select note.id
        from recon.parity_note as note
        where note.gateway_customer_id = taken.gateway_customer_id
            and note.usage_type = taken.usage_type
            and note.gateway_name = taken.gateway_name
        limit 1
        for key share skip locked
    ) as relied_on on true
    where relied_on.id is null
        and (
            taken.gateway_customer_id is null
            or exists (
                select
                from recon.parity_key as key
                where key.gateway_name = taken.gateway_name
                    and key.usage_type = taken.usage_type
                    and key.gateway_customer_id = taken.gateway_customer_id
            )
        );
    return null;
end
$keep$;
comment on function recon.keep_note_for_parity is
    'Runs when notes of changed events are taken: a comparison with a meter has to hear of them, too. A note that is '
    'there is relied on and locked, so that nobody takes it before we commit; nobody waits for another.';
create trigger keep_note_for_parity after delete on recon.invalidated_key
    referencing old table as old_notes for each statement execute function recon.keep_note_for_parity();
"""


def upgrade() -> None:
    """Note news by key, and drop the sums that each comparison made of the whole log."""
    op.execute(_NEWS)


def downgrade() -> None:
    """Refuse, as version 0001 does."""
    raise NotImplementedError("drop schema recon by hand if the ledger of repairs may be lost")
