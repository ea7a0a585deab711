"""Tables of the reconciliation: horizons, aggregates, drift, the ledger of repairs, the record of runs."""

from alembic import op

revision = "0001"
down_revision = None

_KEY = """
    gateway_name text not null,
    usage_type text not null,
    gateway_customer_id text not null,
    period_start timestamptz not null,
    period_end timestamptz not null"""

_TABLES = f"""
create table recon.reconciliation_run (
    run_id text primary key,
    started_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    outcome text not null default 'running'
        check (outcome in ('running', 'clean', 'not_clean', 'compared', 'blocked', 'failed')),
    mode text not null,
    scope text[] not null,
    first_partition text not null,
    last_partition text not null,
    customers text[],
    horizon xid8,
    events_scanned bigint,
    counters_scanned bigint,
    drift_by_kind jsonb,
    drift_count bigint,
    rows_repaired bigint,
    deferred_count bigint,
    dedupe_count bigint,
    reconcile_failures bigint,
    over_quota_transitions bigint,
    under_quota_transitions bigint,
    mismatch_count bigint,
    approved_by text,
    approved_reason text,
    error text
);
create index reconciliation_run_by_start on recon.reconciliation_run (started_at);

create table recon.horizon (
    partition text primary key,
    horizon xid8 not null,
    run_id text not null,
    aggregated_at timestamptz not null
);

create table recon.verified_month (
    partition text primary key,
    verified_at timestamptz not null,
    run_id text not null
);

create table recon.usage_aggregate ({_KEY},
    event_count bigint not null,
    usage_count numeric not null,
    primary key (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
);
create index usage_aggregate_by_period on recon.usage_aggregate (period_start);

create table recon.counter_drift (
    run_id text not null,
    ordinal bigint not null,{_KEY},
    kind text not null check (kind in ('missing', 'under', 'over', 'orphan')),
    usage_count bigint,
    counter_xid xid,
    counter_tid tid,
    settled_sum numeric not null,
    visible_sum numeric not null,
    usage_limit bigint,
    over_quota_transition boolean generated always as (
        coalesce(usage_count, 0) < usage_limit and usage_limit <= settled_sum
    ) stored,
    under_quota_transition boolean generated always as (
        settled_sum < usage_limit and usage_limit <= coalesce(usage_count, 0)
    ) stored,
    outcome text check (outcome in ('repaired', 'in_sync', 'deferred', 'failed')),
    error text,
    primary key (run_id, ordinal)
) with (fillfactor = 50); -- each row is updated once, in its own page

create table recon.counter_repair (
    id bigint generated always as identity primary key,
    run_id text not null,
    repaired_at timestamptz not null default clock_timestamp(),{_KEY},
    kind text not null check (kind in ('missing', 'under', 'over', 'orphan')),
    usage_count_before bigint,
    usage_count_after bigint not null,
    usage_limit bigint,
    usage_delta numeric generated always as (
        usage_count_after::numeric - coalesce(usage_count_before, 0)
    ) stored,
    over_quota_transition boolean generated always as (
        coalesce(usage_count_before, 0) < usage_limit and usage_limit <= usage_count_after
    ) stored,
    under_quota_transition boolean generated always as (
        usage_count_after < usage_limit and usage_limit <= coalesce(usage_count_before, 0)
    ) stored
);
create index counter_repair_by_run on recon.counter_repair (run_id);
create index counter_repair_by_customer on recon.counter_repair (gateway_customer_id, repaired_at);
comment on table recon.counter_repair is
    'Append only. For each key: counter now = increments by the application + sum of usage_delta.';
"""

_APPEND_ONLY = """
create function recon.refuse_change() returns trigger language plpgsql as $refusal$
begin
    raise insufficient_privilege using
        message = 'recon.' || tg_table_name || ' is append only',
        hint = 'Take a repair back by a further repair.';
end
$refusal$;
"""

_APPEND_ONLY_TRIGGER = """
create trigger counter_repair_is_append_only
    before update or delete or truncate on recon.counter_repair
    for each statement execute function recon.refuse_change();
"""


def upgrade() -> None:
    """Create the tables."""
    op.execute(_TABLES)
    op.execute(_APPEND_ONLY)
    op.execute(_APPEND_ONLY_TRIGGER)


def downgrade() -> None:
    """Refuse: the ledger is the account of what was done to counters, and dropping it is nobody's routine."""
    raise NotImplementedError("drop schema recon by hand if the ledger of repairs may be lost")
