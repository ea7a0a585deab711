"""What a person on call decides: pauses of repairs, holds on customers, repairs taken back, approvals."""

from alembic import op

revision = "0006"
down_revision = "0005"

_CONTROL = """
create table recon.control (
    id bigint generated always as identity primary key,
    action text not null check (action in ('pause', 'resume')),
    reason text,
    acted_by text not null,
    acted_at timestamptz not null default clock_timestamp(),
    until timestamptz,
    check (action = 'resume' or reason is not null)
);
comment on table recon.control is
    'Append only: who paused and resumed repairs, and why. The newest row says what is so; a pause may end by itself.';
create trigger control_is_append_only
    before update or delete or truncate on recon.control
    for each statement execute function recon.refuse_change();

create table recon.hold (
    id bigint generated always as identity primary key,
    gateway_customer_id text not null,
    partition text,
    reason text not null,
    held_by text not null,
    held_at timestamptz not null default clock_timestamp(),
    until timestamptz not null,
    released_at timestamptz,
    released_by text,
    release_reason text
);
create index hold_not_released on recon.hold (gateway_customer_id) where released_at is null;
comment on table recon.hold is
    'Customers whose counters are left alone until then, in one billing month or (partition null) in all of them.';

create table recon.held_key (
    gateway_name text not null,
    usage_type text not null,
    gateway_customer_id text not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    noted_xid xid8 not null default pg_current_xact_id(),
    primary key (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
);
comment on table recon.held_key is
    'Drifted keys that a run left alone because of a hold: every run looks at them again until they match.';
"""

_RUNS = """
alter table recon.reconciliation_run
    drop constraint reconciliation_run_outcome_check,
    add constraint reconciliation_run_outcome_check
        check (outcome in ('running', 'clean', 'not_clean', 'compared', 'blocked', 'failed', 'paused')),
    add paused_reason text,
    add held_count bigint,
    add approved_run_id text;
comment on column recon.reconciliation_run.paused_reason is
    'Who paused repairs and why, where that kept this run from repairing all that it found.';
comment on column recon.reconciliation_run.approved_run_id is
    'The blocked run whose figures were shown to the person who approved this one.';

alter table recon.counter_drift
    drop constraint counter_drift_outcome_check,
    add constraint counter_drift_outcome_check
        check (outcome in ('repaired', 'in_sync', 'deferred', 'failed', 'held')) not valid;
"""

# `not valid`: what is there obeyed a narrower list, and the ledger may be large.
_UNDO = """
alter table recon.counter_repair
    drop constraint counter_repair_kind_check,
    add constraint counter_repair_kind_check
        check (kind in ('missing', 'under', 'over', 'orphan', 'undo')) not valid,
    add undoes bigint;
create unique index counter_repair_undone_once on recon.counter_repair (undoes) where undoes is not null;
comment on column recon.counter_repair.undoes is 'The row of this ledger that this one takes back (kind undo).';

create table recon.undo (
    run_id text primary key,
    undone_run_id text not null,
    customers text[],
    reason text not null,
    requested_by text not null,
    started_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    undone bigint,
    already_undone bigint,
    below_zero bigint,
    without_counter bigint,
    deferred bigint,
    failed bigint,
    not_undone jsonb
);
comment on table recon.undo is 'Who had the repairs of which run taken back, why, and what became of that.';
"""


def upgrade() -> None:
    """Create the tables, and let runs and the ledger tell of them."""
    op.execute(_CONTROL)
    op.execute(_RUNS)
    op.execute(_UNDO)


def downgrade() -> None:
    """Refuse, as version 0001 does."""
    raise NotImplementedError("drop schema recon by hand if the ledger of repairs may be lost")
