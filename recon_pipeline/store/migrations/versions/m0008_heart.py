"""One table of months, one of open keys, one horizon; notes of changed events that do not pile up."""

from alembic import op

revision = "0008"
down_revision = "0007"

_TABLES = """
create table recon.open_key (
    gateway_name text not null,
    usage_type text not null,
    gateway_customer_id text not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    reason text not null check (reason in ('changed', 'drifted', 'untouched', 'deferred', 'failed', 'held')),
    error text,
    opened_at timestamptz not null default now(),
    noted_xid xid8 not null default pg_current_xact_id(),
    primary key (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
);
comment on table recon.open_key is
    'Keys that do not count as verified, and why: every run looks at them again until they match.';
insert into recon.open_key (gateway_name, usage_type, gateway_customer_id, period_start, period_end, reason)
select gateway_name, usage_type, gateway_customer_id, period_start, period_end, 'held' from recon.held_key;
drop table recon.held_key;

-- The first run sums the log anew: what was stored says nothing of keys whose sum is 0.
delete from recon.usage_aggregate;
delete from recon.usage_month;
delete from recon.invalidated_key;
drop table recon.horizon;
drop table recon.verified_month;
alter table recon.event_log add horizon xid8;
comment on column recon.event_log.horizon is
    'Events of transactions below it are in recon.usage_aggregate, those at or above it are not; null: none are.';
alter table recon.usage_month
    drop column recomputed_count,
    drop column counters_kept,
    drop column counters_written,
    add nonzero_count bigint not null default 0,
    add verified_at timestamptz;
comment on column recon.usage_month.nonzero_count is
    'Keys whose event sum is not 0, so that each of them needs a counter.';
comment on column recon.usage_month.verified_below is
    'Every counter matched the events of transactions below this one, but those of open keys; null: compare every key.';
comment on column recon.usage_month.counters_verified_below is
    'Counters whose row is of a transaction below this one are as they were when they matched.';

alter table recon.reconciliation_run
    drop column counters_kept,
    drop column counters_written,
    drop constraint reconciliation_run_outcome_check,
    add constraint reconciliation_run_outcome_check
        check (outcome in ('running', 'clean', 'not_clean', 'compared', 'blocked', 'failed', 'paused', 'put_off'));
alter table recon.counter_drift
    drop column counter_xid,
    drop column counter_tid;

drop index recon.invalidated_key_by_usage;
-- A hash, since a customer's name may be longer than an index takes.
create index invalidated_key_by_key on recon.invalidated_key (hashtextextended(gateway_customer_id, 0), period_start);
"""

_NOTE_CHANGED_EVENTS = """
create or replace function recon.note_changed_events() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $note$
declare
    columns constant text :=
        'gateway_name, usage_type, gateway_customer_id, period_start, period_end, request_id, quantity, created_at, id,
        event_timestamp, ingest_xid';
    changed text := 'select ' || columns || ' from old_rows';
    key text := 'gateway_name, usage_type, gateway_customer_id, period_start, period_end';
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
    changed := 'select * from (' || changed || ') as event where gateway_name is not null and usage_type is not null '
        || 'and period_start is not null';
    -- Where a request id can occur twice, taking away the first makes another one count, maybe of another key.
    if tg_nargs > 0 then
        changed := format(
            'with changed as materialized (%1$s)
            select gateway_name, usage_type, gateway_customer_id, period_start, period_end from changed
            union all
            select event.gateway_name, event.usage_type, event.gateway_customer_id, event.period_start, event.period_end
            from %2$s as event
            where (event.gateway_name, event.request_id) in (select gateway_name, request_id from changed)
                and event.request_id = any(array(select request_id from changed))
                and event.usage_type is not null
                and event.period_start is not null',
            changed, tg_argv[0]::regclass
        );
    end if;
    -- An event that belongs to no key that could be kept is kept under the empty name.
    changed := format(
        'select distinct gateway_name, usage_type,
            case
                when octet_length(gateway_customer_id) <= 1000 and period_end is not null then gateway_customer_id
                else %L
            end
            as gateway_customer_id,
            period_start, coalesce(period_end, period_start) as period_end from (%s) as event',
        '', changed
    );
    if current_setting('transaction_isolation') <> 'read committed' then
        execute format('insert into recon.invalidated_key (%1$s) select %1$s from (%2$s) as changed', key, changed);
        return null;
    end if;
    -- A key that is noted already needs no second note, as long as nobody takes that one away before we commit: so the
    -- note is locked. Whoever takes notes away locks them too, and sums in a later statement. Nobody waits for another.
    execute format(
        'with changed as materialized (%2$s)
        insert into recon.invalidated_key (%1$s)
        select %1$s
        from changed
        -- Each is looked up by index; in a list of those that are noted it would be looked for in all of it, once the
        -- list is too long for the memory that the application allows.
        left join lateral (
                select true as is_noted
                from recon.invalidated_key as note
                where hashtextextended(note.gateway_customer_id, 0) = hashtextextended(changed.gateway_customer_id, 0)
                    and note.period_start = changed.period_start
                    and note.period_end = changed.period_end
                    and note.gateway_customer_id = changed.gateway_customer_id
                    and note.usage_type = changed.usage_type
                    and note.gateway_name = changed.gateway_name
                limit 1
                for key share skip locked
        ) as note on true
        where note.is_noted is null',
        key, changed
    );
    return null;
exception when others then
    -- Whatever is wrong here, the application's own statement goes on; the aggregates are made anew.
    insert into recon.invalidated_key (gateway_name) values (null);
    return null;
end
$note$;
"""


def upgrade() -> None:
    """Replace the tables, and the function that the triggers of `recon init` call."""
    op.execute(_TABLES)
    op.execute(_NOTE_CHANGED_EVENTS)


def downgrade() -> None:
    """Refuse, as version 0001 does."""
    raise NotImplementedError("drop schema recon by hand if the ledger of repairs may be lost")
