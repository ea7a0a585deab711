"""Tables of the incremental mode: one horizon per metered usage, figures per month and key, notes of changed events."""

from alembic import op

revision = "0002"
down_revision = "0001"

_TABLES = """
drop table recon.horizon; -- of the months aggregated by the full mode; nothing reads it any more
delete from recon.usage_aggregate; -- the first run builds them anew, up to a horizon

create table recon.horizon (
    gateway_name text not null,
    usage_type text not null,
    horizon xid8 not null,
    run_id text not null,
    moved_at timestamptz not null,
    primary key (gateway_name, usage_type)
);
comment on table recon.horizon is
    'Events of transactions below the horizon are in recon.usage_aggregate, those at or above it are not.';

create table recon.usage_month (
    gateway_name text not null,
    usage_type text not null,
    partition text not null,
    last_period_end timestamptz,
    key_count bigint not null default 0,
    event_count bigint not null default 0,
    invalid_count bigint not null default 0,
    dedupe_count bigint not null default 0,
    outside_period_count bigint not null default 0,
    has_oversized boolean not null default false,
    recomputed_count bigint not null default 0,
    verified_below xid8,
    counters_verified_below xid8,
    counters_kept text,
    counters_written text,
    primary key (gateway_name, usage_type, partition)
);
comment on column recon.usage_month.verified_below is
    'Every counter matched the events of transactions below this one; null: compare every key of the month.';

alter table recon.usage_aggregate
    add invalid_count bigint not null default 0,
    add dedupe_count bigint not null default 0,
    add outside_period_count bigint not null default 0;
create index usage_aggregate_odd on recon.usage_aggregate (gateway_name, usage_type, period_start)
    where invalid_count > 0 or outside_period_count > 0;
drop index recon.usage_aggregate_by_period;
alter table recon.usage_aggregate set (fillfactor = 80); -- sums change in place, without a new entry in the index

create table recon.event_log (
    is_known boolean primary key default true check (is_known),
    identity text not null,
    first_seen_at timestamptz not null default clock_timestamp()
);
comment on table recon.event_log is 'Which log the aggregates were made from: server, database, tables.';

create table recon.invalidated_key (
    id bigint generated always as identity primary key,
    gateway_name text,
    usage_type text,
    gateway_customer_id text,
    period_start timestamptz,
    period_end timestamptz,
    noted_at timestamptz not null default now()
);
create index invalidated_key_by_usage on recon.invalidated_key (gateway_name, usage_type);
comment on table recon.invalidated_key is
    'Keys whose events were deleted or updated since they were absorbed; a row of nulls: the log was truncated.';

alter table recon.reconciliation_run
    add mode_reason text,
    add rebuilt_because text,
    add compared_below xid8,
    add counters_kept text,
    add counters_written text,
    add aggregates_differing bigint;
"""

_NOTE_CHANGED_EVENTS = """
create function recon.note_changed_events() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $note$
declare
    columns constant text :=
        'gateway_name, usage_type, gateway_customer_id, period_start, period_end, request_id, quantity, created_at, id,
        event_timestamp, ingest_xid';
    changed text := 'select ' || columns || ' from old_rows';
begin
    if tg_op = 'TRUNCATE' then
        insert into recon.invalidated_key (gateway_name) values (null);
        return null;
    end if;
    if tg_op = 'UPDATE' then
        changed := format(
            '(select %1$s from old_rows except select %1$s from new_rows)
            union all (select %1$s from new_rows except select %1$s from old_rows)',
            columns
        );
    end if;
    execute format(
        'insert into recon.invalidated_key (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
        select distinct gateway_name, usage_type, coalesce(gateway_customer_id, %L), period_start, period_end
        from (%s) as changed
        where gateway_name is not null and usage_type is not null',
        '', changed
    );
    -- Where a request id can occur twice, taking away the first makes another one count, maybe of another key.
    if tg_nargs > 0 then
        execute format(
            'insert into recon.invalidated_key (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
            select distinct
                event.gateway_name, event.usage_type, coalesce(event.gateway_customer_id, %L),
                event.period_start, event.period_end
            from (%s) as changed
            join %s as event using (gateway_name, request_id)
            where event.usage_type is not null',
            '', changed, tg_argv[0]::regclass
        );
    end if;
    return null;
exception when others then
    -- Whatever is wrong here, the application's own statement goes on; the aggregates are made anew.
    insert into recon.invalidated_key (gateway_name) values (null);
    return null;
end
$note$;
comment on function recon.note_changed_events() is
    'Runs when events are deleted, updated or truncated; only ever adds to recon.invalidated_key.';
"""


def upgrade() -> None:
    """Create the tables, and the function that the triggers of `recon init` call."""
    op.execute(_TABLES)
    op.execute(_NOTE_CHANGED_EVENTS)


def downgrade() -> None:
    """Refuse, as version 0001 does."""
    raise NotImplementedError("drop schema recon by hand if the ledger of repairs may be lost")
