"""What the log means: doubtful keys, events that left the log, negative quantities, accepted usages, retention."""

from alembic import op

revision = "0009"
down_revision = "0008"

_DOUBTFUL = """
alter table recon.counter_drift drop constraint counter_drift_outcome_check;
alter table recon.counter_drift add constraint counter_drift_outcome_check
    check (outcome in ('repaired', 'in_sync', 'deferred', 'failed', 'held', 'doubtful')) not valid;
alter table recon.open_key
    drop constraint open_key_reason_check,
    add constraint open_key_reason_check
        check (reason in ('changed', 'drifted', 'untouched', 'deferred', 'failed', 'held', 'doubtful')),
    add events_left bigint not null default 0,
    add units_left numeric not null default 0,
    add credits_left numeric not null default 0;
comment on column recon.open_key.events_left is
    'Events that runs had counted and that are no longer in the log, since the counter last matched.';
comment on column recon.open_key.units_left is 'What these events added up to, those of positive quantity.';
comment on column recon.open_key.credits_left is 'What those of negative quantity added up to, as a positive number.';
alter table recon.counter_drift add events_left bigint, add units_left numeric;
comment on column recon.counter_drift.events_left is
    'Of a counter that is left alone for it: events of the key that left the log since the counter last matched.';
comment on column recon.counter_drift.units_left is
    'What these added up to: usage of a counter that would be lowered, credits of one that would be raised.';
alter table recon.reconciliation_run
    add doubtful_count bigint,
    add session_pid integer,
    add session_start timestamptz,
    add step_started_at timestamptz,
    add events_left_the_log jsonb;
comment on column recon.reconciliation_run.doubtful_count is
    'Drifted keys that were left alone because the log does not say for certain what their counters should be.';
comment on column recon.reconciliation_run.events_left_the_log is
    'By billing month: the keys that were left alone because events of theirs left the log, and how much it was.';
"""

_SESSIONS = """
comment on column recon.reconciliation_run.session_pid is
    'With session_start, the session of the latest step; once it is gone, so is a run that says it is running.';
"""

_NEGATIVE = """
alter table recon.usage_aggregate
    add negative_count bigint not null default 0,
    add credit_units numeric not null default 0;
comment on column recon.usage_aggregate.credit_units is
    'What the events of negative quantity add up to, which usage_count contains.';
alter table recon.usage_month add negative_count bigint not null default 0;
-- Events of no or negative units were invalid: months with invalid events are summed anew. What their keys added up to
-- was counted in another way, so that nothing left the log where it is more than what is summed now.
delete from recon.usage_aggregate where invalid_count > 0;
delete from recon.usage_month where invalid_count > 0;
"""

_ACCEPTED = """
create table recon.accepted_usage (
    gateway_name text not null,
    usage_type text not null,
    accepted_at timestamptz not null default clock_timestamp(),
    accepted_by text,
    reason text,
    run_id text,
    primary key (gateway_name, usage_type)
);
comment on table recon.accepted_usage is
    'Metered usages whose first comparison a person has approved, or that had no drift; no other is repaired.';
-- What was reconciled before was accepted by those who ran it.
insert into recon.accepted_usage (gateway_name, usage_type, reason)
select gateway_name, usage_type, 'reconciled before approval of a first run was asked for'
from (
    select gateway_name, usage_type from recon.usage_month where verified_at is not null
    union
    select gateway_name, usage_type from recon.counter_repair
) as reconciled;
"""

_RETENTION = """
create table recon.retention (
    id bigint generated always as identity primary key,
    before_partition text not null,
    reason text not null,
    declared_by text not null,
    declared_at timestamptz not null default clock_timestamp()
);
comment on table recon.retention is
    'Billing months before this one are no longer in the log; the latest row counts. Counters are kept as they are.';
create trigger retention_is_append_only
    before update or delete or truncate on recon.retention
    for each statement execute function recon.refuse_change();
"""

_SKIPPED = """
alter table recon.backfill_batch add skipped bigint not null default 0;
comment on column recon.backfill_batch.skipped is 'Rows that its mapping leaves out (skip_when); not among rows_read.';
"""


def upgrade() -> None:
    """Add to the tables."""
    for statements in (_DOUBTFUL, _SESSIONS, _NEGATIVE, _ACCEPTED, _RETENTION, _SKIPPED):
        op.execute(statements)


def downgrade() -> None:
    """Refuse, as version 0001 does."""
    raise NotImplementedError("drop schema recon by hand if the ledger of repairs may be lost")
