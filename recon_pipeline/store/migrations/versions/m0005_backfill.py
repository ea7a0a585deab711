"""Tables of the backfill: batches, the rows that were not taken, and which customers the log's foreign key refuses."""

from alembic import op

revision = "0005"
down_revision = "0004"

_TABLES = """
create table recon.backfill_batch (
    batch_id uuid primary key,
    run_id text not null,
    sources text[] not null,
    mapping jsonb not null,
    periods text[],
    dry_run boolean not null,
    started_by text not null,
    started_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    outcome text not null default 'running' check (outcome in ('running', 'done', 'failed')),
    rows_read bigint not null default 0,
    inserted bigint not null default 0,
    duplicate bigint not null default 0,
    conflict bigint not null default 0,
    rejected bigint not null default 0,
    partitions text[] not null default '{}',
    error text,
    constraint every_row_ended_in_one_way check (rows_read = inserted + duplicate + conflict + rejected)
);
create index backfill_batch_by_start on recon.backfill_batch (started_at);
create index backfill_batch_by_run on recon.backfill_batch (run_id);
comment on column recon.backfill_batch.partitions is
    'Billing months of the events that are in the log: inserted or duplicate.';

create table recon.rejected_event (
    batch_id uuid not null references recon.backfill_batch on delete cascade,
    ordinal bigint not null,
    kind text not null check (kind in ('rejected', 'conflict')),
    source text not null,
    line bigint not null,
    reasons text[] not null,
    raw_row text not null,
    stays jsonb,
    primary key (batch_id, ordinal)
);
comment on column recon.rejected_event.raw_row is
    'The row as JSON; text, since jsonb refuses NUL. A JSON string: a line that could not be taken apart.';
comment on column recon.rejected_event.stays is
    'The event in the log that has the same request id and another content.';
"""

_UNKNOWN_CUSTOMERS = """
create function recon.unknown_customers(customers text[]) returns table (customer text, referenced text)
language plpgsql stable as $unknown$
declare
    reference record;
begin
    for reference in
        select rule.confrelid::regclass::text as relation, known.attname
        from pg_constraint as rule
        join pg_attribute as own on own.attrelid = rule.conrelid and own.attnum = rule.conkey[1]
        join pg_attribute as known on known.attrelid = rule.confrelid and known.attnum = rule.confkey[1]
        where rule.conrelid = to_regclass('billing_usage_events')
            and rule.contype = 'f'
            and cardinality(rule.conkey) = 1
            and own.attname = 'gateway_customer_id'
            and has_column_privilege(rule.confrelid, known.attnum, 'select')
            and not row_security_active(rule.confrelid)
    loop
        return query execute format(
            'select given.customer, %L::text from unnest($1) as given (customer)
            where not exists (select from %s as known where known.%I = given.customer)',
            reference.relation, reference.relation, reference.attname
        ) using customers;
    end loop;
end
$unknown$;
comment on function recon.unknown_customers is
    'Customers that a foreign key of the log would refuse, and the table that lacks them, as far as our role may look.';
"""


def upgrade() -> None:
    """Create tables and function."""
    op.execute(_TABLES)
    op.execute(_UNKNOWN_CUSTOMERS)


def downgrade() -> None:
    """Refuse, as version 0001 does."""
    raise NotImplementedError("drop schema recon by hand if the ledger of repairs may be lost")
