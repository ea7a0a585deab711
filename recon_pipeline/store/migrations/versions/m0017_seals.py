"""A closed month is sealed: its final sums are kept, and are what its counters follow from then on."""

from alembic import op

revision = "0017"
down_revision = "0016"

_SEALS = """
create table recon.month_seal (
    id bigint generated always as identity primary key,
    kind text not null check (kind in ('sealed', 'reopened')),
    gateway_name text not null,
    usage_type text not null,
    partition text not null,
    acted_at timestamptz not null,
    acted_by text not null,
    reason text,
    run_id text,
    seen pg_snapshot not null,
    key_count bigint not null,
    nonzero_count bigint not null,
    event_count bigint not null,
    usage_count numeric not null,
    checksum text not null,
    previous_chain text not null unique,
    chain text not null,
    check (kind = 'sealed' or reason is not null)
);
create trigger month_seal_is_append_only
    before update or delete or truncate on recon.month_seal
    for each statement execute function recon.refuse_change();
comment on table recon.month_seal is
    'Append only: which billing months were sealed and reopened, by whom. The newest row of a month says what is so.';
comment on column recon.month_seal.seen is
    'The snapshot at which the month was sealed: events that it does not see came later.';
comment on column recon.month_seal.nonzero_count is 'Keys whose sealed sum is not 0.';
comment on column recon.month_seal.checksum is
    'Of the keys with their sums and events, in whichever order. A reopening repeats what the seal says that it ends.';
comment on column recon.month_seal.previous_chain is
    'The chain of the row before; empty for the first. Unique: no two rows follow one.';
comment on column recon.month_seal.chain is 'A checksum of this row and of previous_chain.';

create table recon.sealed_counter (
    seal_id bigint not null,
    gateway_customer_id text not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    usage_count bigint not null,
    event_count bigint not null,
    credit_units numeric not null,
    event_checksum numeric not null,
    primary key (seal_id, gateway_customer_id, period_start, period_end)
);
create trigger sealed_counter_is_append_only
    before update or delete or truncate on recon.sealed_counter
    for each statement execute function recon.refuse_change();
comment on table recon.sealed_counter is
    'Append only: the final sum of each key of a sealed month. A key of the month that has no row is sealed at 0.';
comment on column recon.sealed_counter.usage_count is 'What a counter held, so that a bigint holds it.';
comment on column recon.sealed_counter.credit_units is
    'What the events of negative quantity add up to, which usage_count contains.';
comment on column recon.sealed_counter.event_checksum is 'The sum of the checksums of the events that count.';

create view recon.sealed_month as
    select id as seal_id, gateway_name, usage_type, partition
    from (
        select distinct on (gateway_name, usage_type, partition) id, kind, gateway_name, usage_type, partition
        from recon.month_seal
        order by gateway_name, usage_type, partition, id desc
    ) as newest
    where kind = 'sealed';
comment on view recon.sealed_month is 'The billing months that are sealed, each with the seal that counts.';
"""

_FOLLOWED = """
alter table recon.counter_drift add seal_id bigint;
comment on column recon.counter_drift.seal_id is
    'The seal that the counter was compared with, instead of the log; null in an open month.';
alter table recon.usage_month add verified_seal_id bigint;
comment on column recon.usage_month.verified_seal_id is
    'The seal that counters were verified against; null: the log. Other than that of the month: compare every key.';
alter table recon.undo add sealed bigint;
comment on column recon.undo.sealed is 'Repairs that were not taken back because their month is sealed.';
"""


def upgrade() -> None:
    """Create the tables of seals, and what remembers which one was followed."""
    op.execute(_SEALS)
    op.execute(_FOLLOWED)


def downgrade() -> None:
    """Refuse, as version 0001 does."""
    raise NotImplementedError("drop schema recon by hand if the ledger of repairs may be lost")
