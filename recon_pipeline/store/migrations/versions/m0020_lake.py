"""Months of which the events are in a lake: what an engine counted there stands in the place of the log."""

from alembic import op

revision = "0020"
down_revision = "0019"

_COUNTS = """
create table recon.lake_count (
    -- Below 0, so that it is the number of no seal.
    id bigint generated always as identity (start with -1 increment by -1 maxvalue -1) primary key,
    kind text not null check (kind in ('counted', 'withdrawn')),
    gateway_name text not null,
    usage_type text not null,
    partition text not null,
    acted_at timestamptz not null default clock_timestamp(),
    acted_by text not null,
    reason text,
    run_id text,
    engine text not null,
    complete_until timestamptz not null,
    source jsonb not null,
    key_count bigint not null,
    nonzero_count bigint not null,
    event_count bigint not null,
    usage_count numeric not null,
    invalid_count bigint not null,
    dedupe_count bigint not null,
    outside_period_count bigint not null
);
create trigger lake_count_is_append_only
    before update or delete or truncate on recon.lake_count
    for each statement execute function recon.refuse_change();
comment on table recon.lake_count is
    'Append only: which months were counted in the lake, or withdrawn. The newest row of a month says what is so.';
comment on column recon.lake_count.complete_until is
    'Of periods that end until then, the lake had every event; counters of later ones are compared and not repaired.';
comment on column recon.lake_count.source is
    'Lake, mapping, event identity, and name, size and version of each file: to derive the sums again.';

create table recon.lake_counter (
    count_id bigint not null,
    gateway_customer_id text not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    usage_count numeric not null,
    event_count bigint not null,
    credit_units numeric not null,
    primary key (count_id, gateway_customer_id, period_start, period_end)
);
comment on table recon.lake_counter is
    'The event sums by key of the newest count of a month. A key of the month that has no row has no events.';

create unlogged table recon.lake_staged_sum (
    gateway_customer_id text not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    event_count bigint not null,
    invalid_count bigint not null,
    dedupe_count bigint not null,
    outside_period_count bigint not null,
    usage numeric[] not null,
    credit numeric[] not null
);
comment on table recon.lake_staged_sum is
    'The sums that an engine sends while a month is counted; empty at all other times.';
comment on column recon.lake_staged_sum.usage is 'In pieces, each to be multiplied by its power of ten.';

create view recon.stand_in as
    select
        seal.id as seal_id, seal.gateway_name, seal.usage_type, seal.partition, seal.nonzero_count,
        seal.acted_at as covers_until, 'infinity'::timestamptz as complete_until
    from recon.sealed_month
    join recon.month_seal as seal on seal.id = sealed_month.seal_id
    union all
    select id, gateway_name, usage_type, partition, nonzero_count, 'infinity', complete_until
    from (
        select distinct on (gateway_name, usage_type, partition) *
        from recon.lake_count
        order by gateway_name, usage_type, partition, id
    ) as newest
    where kind = 'counted'
        and (gateway_name, usage_type, partition)
        not in (select gateway_name, usage_type, partition from recon.sealed_month);
comment on view recon.stand_in is
    'What stands in the place of the log, by month: its seal or, where it has none, its count in the lake.';
comment on column recon.stand_in.covers_until is
    'Keys with periods that end later follow the log: they had not ended when the month was sealed.';

create function recon.follows_log(
    period_start timestamptz, period_end timestamptz, sealed_months timestamptz[], sealed_until timestamptz[]
) returns boolean
language sql stable as $follows$
    select cardinality(sealed_months) = 0
        or date_trunc('month', period_start, 'UTC') <> all(sealed_months)
        or period_end > sealed_until[array_position(sealed_months, date_trunc('month', period_start, 'UTC'))]
$follows$;
comment on function recon.follows_log is
    'Whether the log says what the counter of a period should be, and not a seal or a count in the lake.';

create view recon.stand_in_sum as
    select seal_id, gateway_customer_id, period_start, period_end, usage_count::numeric as usage_count
    from recon.sealed_counter
    union all
    select count_id, gateway_customer_id, period_start, period_end, usage_count
    from recon.lake_counter;
comment on view recon.stand_in_sum is 'The sums by key of seals and of counts in the lake.';
"""


def upgrade() -> None:
    """Create the tables of counts, and the views of what stands in the place of the log."""
    op.execute(_COUNTS)


def downgrade() -> None:
    """Refuse, as version 0001 does."""
    raise NotImplementedError("drop schema recon by hand if the ledger of repairs may be lost")
