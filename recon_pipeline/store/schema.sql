-- Schema recon as it is now, to be read. It is never run: databases are made and changed by the migrations beside it.
-- Invariant: what the migrations make, to the last comment; a test compares the two. A column stands where a migration has put it.
-- Which module writes which table: docs/architecture.md. The words: docs/glossary.md.

create schema recon;

-- The version of the schema, kept by Alembic.
create table recon.schema_version (
    version_num varchar(32) not null,
    constraint schema_version_pkc primary key (version_num)
);

-- Refuses every change of what is only ever added to.
create function recon.refuse_change() returns trigger language plpgsql as $refusal$
begin
    raise insufficient_privilege using
        message = 'recon.' || tg_table_name || ' is append only',
        hint = 'Take a repair back by a further repair.';
end
$refusal$;


-- Rules that statements of several rooms apply.

create function recon.fits_bigint(amount numeric) returns boolean
language sql immutable as $fits$
    select amount between -9223372036854775808 and 9223372036854775807 and amount = trunc(amount)
$fits$;
comment on function recon.fits_bigint is
    'Whether a counter can hold an event sum: a whole number within the limits of bigint.';

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

create function recon.fits_index(customer text) returns boolean
language sql immutable as $fits$
    select octet_length(customer) <= 1000
$fits$;
comment on function recon.fits_index is 'Whether the name of a customer is short enough for an index.';

create function recon.billing_month(instant timestamptz) returns text
language sql stable as $month$
    select to_char(instant at time zone 'UTC', 'YYYY-MM')
$month$;
comment on function recon.billing_month is 'The UTC month of a time, YYYY-MM: of a period, that of its start.';

create function recon.is_settled(written_by xid, settled_below xid8) returns boolean
language sql stable as $settled$
    select age(written_by) < 0 or age(written_by) > age(settled_below::xid)
$settled$;
comment on function recon.is_settled is
    'Whether the transaction that wrote a row had ended at a horizon; null, which means no, without a horizon. '
    'The age of a row that was frozen long ago may be negative: it is old.';

create function recon.are_one_event(
    identity text[], same_usage_type boolean, same_customer boolean, same_period_start boolean, same_period_end boolean,
    same_event_timestamp boolean, same_created_at boolean
) returns boolean
language sql immutable as $one_event$
    select ('usage_type' <> all(identity) or same_usage_type)
        and ('gateway_customer_id' <> all(identity) or same_customer)
        and ('period_start' <> all(identity) or same_period_start)
        and ('period_end' <> all(identity) or same_period_end)
        and ('event_timestamp' <> all(identity) or same_event_timestamp)
        and ('created_at' <> all(identity) or same_created_at)
$one_event$;
comment on function recon.are_one_event is
    'Whether two rows of one gateway and request id are one event: they agree in every column of the identity.';

create function recon.and_doubt(doubts text[], doubt text) returns text[]
language sql immutable as $and$
    select case when doubt is null or doubt = any(doubts) then doubts else array_append(doubts, doubt) end
$and$;
comment on function recon.and_doubt is 'The doubts of a key with one more, which may be null or among them.';



-- The log and its sums.

-- One row; its lock says who writes aggregates, months and open keys.
create table recon.event_log (
    is_known boolean primary key default true check (is_known),
    identity text not null,
    first_seen_at timestamptz not null default clock_timestamp(),
    prepared_catalog text,
    horizon xid8
);
comment on table recon.event_log is 'Which log the aggregates were made from: server, database, tables.';
comment on column recon.event_log.prepared_catalog is
    'The version of the catalog in which the log was last found to lack nothing for the incremental mode.';
comment on column recon.event_log.horizon is
    'Events of transactions below it are in recon.usage_aggregate, those at or above it are not; null: none are.';

-- Event sums by key, of the events below the horizon; in the order of time, so that what one tick adds lies close together.
create table recon.usage_aggregate (
    gateway_name text not null,
    usage_type text not null,
    gateway_customer_id text not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    event_count bigint not null,
    usage_count numeric not null,
    invalid_count bigint not null default 0,
    dedupe_count bigint not null default 0,
    outside_period_count bigint not null default 0,
    negative_count bigint not null default 0,
    credit_units numeric not null default 0,
    primary key (period_start, gateway_customer_id, period_end, usage_type, gateway_name)
) with (fillfactor = 80); -- sums change in place, without a new entry in the index
alter table recon.usage_aggregate cluster on usage_aggregate_pkey;
create index usage_aggregate_odd on recon.usage_aggregate (gateway_name, usage_type, period_start)
    where invalid_count > 0 or outside_period_count > 0;
comment on column recon.usage_aggregate.credit_units is
    'What the events of negative quantity add up to, which usage_count contains.';

-- The totals of the aggregates by billing month, and what of it was verified.
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
    verified_below xid8,
    counters_verified_below xid8,
    nonzero_count bigint not null default 0,
    verified_at timestamptz,
    negative_count bigint not null default 0,
    verified_seal_id bigint,
    summed_xid xid8 not null default pg_current_xact_id(),
    since_seal jsonb,
    primary key (gateway_name, usage_type, partition)
);
comment on column recon.usage_month.verified_below is
    'Every counter matched the events of transactions below this one, but those of open keys; null: compare every key.';
comment on column recon.usage_month.counters_verified_below is
    'Counters whose row is of a transaction below this one are as they were when they matched.';
comment on column recon.usage_month.nonzero_count is
    'Keys whose event sum is not 0, so that each of them needs a counter.';
comment on column recon.usage_month.verified_seal_id is
    'The seal that counters were verified against; null: the log. Other than that of the month: compare every key.';
comment on column recon.usage_month.summed_xid is
    'The transaction that wrote sums of the month last, or found that they stay as they are.';
comment on column recon.usage_month.since_seal is
    'What came after the month was sealed, as these sums say it, and of which seal; null: nobody has asked since.';

create table recon.invalidated_key (
    id bigint generated always as identity primary key,
    gateway_name text,
    usage_type text,
    gateway_customer_id text,
    period_start timestamptz,
    period_end timestamptz,
    noted_at timestamptz not null default now(),
    events_left bigint not null default 0,
    units_left numeric not null default 0,
    credits_left numeric not null default 0
);
comment on table recon.invalidated_key is
    'Keys whose events were deleted or updated since they were absorbed; a row of nulls: the log was truncated.';
comment on column recon.invalidated_key.events_left is
    'Events that left the log above the horizon, which no stored sum can miss.';
comment on column recon.invalidated_key.units_left is 'What these events added up to, those of positive quantity.';
comment on column recon.invalidated_key.credits_left is
    'What those of negative quantity added up to, as a positive number.';
-- A hash, since a customer's name may be longer than an index takes.
create index invalidated_key_by_key on recon.invalidated_key (hashtextextended(gateway_customer_id, 0), period_start);

create table recon.open_key (
    gateway_name text not null,
    usage_type text not null,
    gateway_customer_id text not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    reason text not null,
    error text,
    opened_at timestamptz not null default now(),
    noted_xid xid8 not null default pg_current_xact_id(),
    events_left bigint not null default 0,
    units_left numeric not null default 0,
    credits_left numeric not null default 0,
    doubts text[] not null default '{}',
    constraint open_key_reason_check
        check (reason in ('changed', 'drifted', 'untouched', 'deferred', 'failed', 'held', 'doubtful')),
    primary key (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
);
comment on table recon.open_key is
    'Keys that do not count as verified, and why: every run looks at them again until they match.';
comment on column recon.open_key.events_left is
    'Events that runs had counted and that are no longer in the log, since the counter last matched.';
comment on column recon.open_key.units_left is 'What these events added up to, those of positive quantity.';
comment on column recon.open_key.credits_left is 'What those of negative quantity added up to, as a positive number.';
comment on column recon.open_key.doubts is
    'What about the log made the key doubtful since its counter last matched.';

-- What the triggers call that recon init puts on the log. With an argument: the log, where a request id can occur twice.
create function recon.note_changed_events() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $note$
declare
    columns constant text :=
        'gateway_name, usage_type, gateway_customer_id, period_start, period_end, request_id, quantity, created_at, id,
        event_timestamp, ingest_xid';
    changed text := 'select ' || columns || ', 1 as left_by from old_rows';
    key text := 'gateway_name, usage_type, gateway_customer_id, period_start, period_end';
begin
    if tg_op = 'TRUNCATE' then
        insert into recon.invalidated_key (gateway_name) values (null);
        return null;
    end if;
    if tg_op = 'UPDATE' then
        changed := format(
            'select *, 1 as left_by from (select %1$s from old_rows except select %1$s from new_rows) as was
            union all
            select *, -1 from (select %1$s from new_rows except select %1$s from old_rows) as is_now',
            columns
        );
    end if;
    changed := 'select * from (' || changed || ') as event where gateway_name is not null and usage_type is not null '
        || 'and period_start is not null';
    -- Where a request id can occur twice, taking away the first makes another one count, maybe of another key; and a
    -- repetition that goes was never counted, if another event of its key has its request id. Where more than a request
    -- id names an event (RECON_EVENT_IDENTITY) that one may be another event.
    if tg_nargs > 0 then
        changed := format(
            'with changed as materialized (%1$s),
            still_there as materialized (
                select event.gateway_name, event.request_id, event.usage_type, event.gateway_customer_id,
                    event.period_start, event.period_end
                from %2$s as event
                where (event.gateway_name, event.request_id) in (select gateway_name, request_id from changed)
                    and event.request_id = any(array(select request_id from changed))
            )
            select gateway_name, usage_type, gateway_customer_id, period_start, period_end, quantity, ingest_xid,
                case
                    when %3$L
                        or (gateway_name, request_id, usage_type, gateway_customer_id, period_start, period_end)
                        not in (
                            select gateway_name, request_id, usage_type, gateway_customer_id, period_start, period_end
                            from still_there
                            where usage_type is not null
                                and gateway_customer_id is not null
                                and period_start is not null
                                and period_end is not null
                        )
                        then left_by
                    else 0
                end as left_by
            from changed
            union all
            select gateway_name, usage_type, gateway_customer_id, period_start, period_end, 0, null, 0
            from still_there
            where usage_type is not null and period_start is not null',
            changed, tg_argv[0]::regclass,
            tg_op = 'UPDATE' or exists (select from recon.event_log where identity like '% events named by %')
        );
    end if;
    -- An event that belongs to no key that could be kept is kept under the empty name. What an event adds up to is
    -- asked only of one that no stored sum has counted: of the others the sums know it. Events from before there were
    -- transaction ids have none, and are of the others.
    changed := format(
        'select %2$s,
            greatest(sum(left_by) filter (where is_missed), 0) as events_left,
            greatest(sum(left_by * greatest(quantity, 0)::numeric) filter (where is_missed), 0) as units_left,
            greatest(sum(left_by * greatest(-quantity, 0)::numeric) filter (where is_missed), 0) as credits_left
        from (
            select
                gateway_name, usage_type, period_start, coalesce(period_end, period_start) as period_end,
                quantity, left_by,
                case
                    when octet_length(gateway_customer_id) <= 1000 and period_end is not null then gateway_customer_id
                    else %1$L
                end as gateway_customer_id,
                left_by <> 0
                and period_end > period_start
                and quantity::numeric > -1e1000
                and quantity::numeric < 1e1000
                and (coalesce(ingest_xid, %4$L) < (select horizon from recon.event_log)) is not true as is_missed
            from (%3$s) as event
        ) as event
        group by %2$s',
        '', key, changed, '0'
    );
    if current_setting('transaction_isolation') <> 'read committed' then
        execute format(
            'insert into recon.invalidated_key (%1$s, events_left, units_left, credits_left)
            select %1$s, events_left, units_left, credits_left from (%2$s) as changed',
            key, changed
        );
        return null;
    end if;
    -- A key that is noted already needs no second note, as long as nobody takes that one away before we commit: so the
    -- note is locked. Whoever takes notes away locks them too, and sums in a later statement. What left is added to the
    -- note, unless another session does so at this moment. Nobody waits for another.
    execute format(
        'with changed as materialized (%2$s),
        known as materialized (
            select changed.*, coalesce(relied_on.id, added_to.id) as note_id
            from changed
            -- Each is looked up by index; in a list of those that are noted it would be looked for in all of it, once
            -- the list is too long for the memory that the application allows.
            left join lateral (
                select note.id
                from recon.invalidated_key as note
                where changed.units_left = 0
                    and changed.credits_left = 0
                    and hashtextextended(note.gateway_customer_id, 0)
                    = hashtextextended(changed.gateway_customer_id, 0)
                    and note.period_start = changed.period_start
                    and note.period_end = changed.period_end
                    and note.gateway_customer_id = changed.gateway_customer_id
                    and note.usage_type = changed.usage_type
                    and note.gateway_name = changed.gateway_name
                limit 1
                for key share skip locked
            ) as relied_on on true
            left join lateral (
                select note.id
                from recon.invalidated_key as note
                where (changed.units_left > 0 or changed.credits_left > 0)
                    and hashtextextended(note.gateway_customer_id, 0)
                    = hashtextextended(changed.gateway_customer_id, 0)
                    and note.period_start = changed.period_start
                    and note.period_end = changed.period_end
                    and note.gateway_customer_id = changed.gateway_customer_id
                    and note.usage_type = changed.usage_type
                    and note.gateway_name = changed.gateway_name
                limit 1
                for no key update skip locked
            ) as added_to on true
        ),
        added as (
            update recon.invalidated_key as note
            set
                events_left = note.events_left + known.events_left,
                units_left = note.units_left + known.units_left,
                credits_left = note.credits_left + known.credits_left
            from known
            where note.id = any(array(select note_id from known where units_left > 0 or credits_left > 0))
                and note.id = known.note_id
        )
        insert into recon.invalidated_key (%1$s, events_left, units_left, credits_left)
        select %1$s, events_left, units_left, credits_left
        from known
        where note_id is null',
        key, changed
    );
    return null;
exception when others then
    -- Whatever is wrong here, the application's own statement goes on; the aggregates are made anew.
    insert into recon.invalidated_key (gateway_name) values (null);
    return null;
end
$note$;
comment on function recon.note_changed_events() is
    'Runs when events are deleted, updated or truncated; only ever adds to recon.invalidated_key.';


-- Runs, what they found, and what they repaired.

create table recon.reconciliation_run (
    run_id text primary key,
    started_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    outcome text not null default 'running'
        check (outcome in ('running', 'clean', 'not_clean', 'compared', 'blocked', 'failed', 'paused', 'put_off')),
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
    error text,
    mode_reason text,
    rebuilt_because text,
    compared_below xid8,
    aggregates_differing bigint,
    paused_reason text,
    held_count bigint,
    approved_run_id text,
    doubtful_count bigint,
    session_pid integer,
    session_start timestamptz,
    step_started_at timestamptz,
    events_left_the_log jsonb,
    confirms_run_id text
);
create index reconciliation_run_by_start on recon.reconciliation_run (started_at);
comment on column recon.reconciliation_run.paused_reason is
    'Who paused repairs and why, where that kept this run from repairing all that it found.';
comment on column recon.reconciliation_run.approved_run_id is
    'The blocked run whose figures were shown to the person who approved this one.';
comment on column recon.reconciliation_run.doubtful_count is
    'Drifted keys that were left alone because the log does not say for certain what their counters should be.';
comment on column recon.reconciliation_run.events_left_the_log is
    'By billing month: the keys that were left alone because events of theirs left the log, and how much it was.';
comment on column recon.reconciliation_run.confirms_run_id is
    'Of a tick that started no run, as nothing had changed: the run over the same months whose result it confirms.';
comment on column recon.reconciliation_run.session_pid is
    'With session_start, the session of the latest step; once it is gone, so is a run that says it is running.';

-- What each comparison found; deleted after 30 days.
create table recon.counter_drift (
    run_id text not null,
    ordinal bigint not null,
    gateway_name text not null,
    usage_type text not null,
    gateway_customer_id text not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    kind text not null check (kind in ('missing', 'under', 'over', 'orphan')),
    usage_count bigint,
    settled_sum numeric not null,
    visible_sum numeric not null,
    usage_limit bigint,
    over_quota_transition boolean generated always as (
        coalesce(usage_count, 0) < usage_limit and usage_limit <= settled_sum
    ) stored,
    under_quota_transition boolean generated always as (
        settled_sum < usage_limit and usage_limit <= coalesce(usage_count, 0)
    ) stored,
    outcome text,
    error text,
    id bigint generated always as identity (cache 1000),
    events_left bigint,
    units_left numeric,
    used_units numeric,
    credit_units numeric,
    credit_count bigint,
    doubts text[] not null default '{}',
    seal_id bigint,
    primary key (run_id, ordinal)
);
comment on column recon.counter_drift.outcome is
    'Why the key was not repaired. A repaired key has a row in recon.counter_repair and no outcome.';
comment on column recon.counter_drift.events_left is
    'Of a counter that is left alone for it: events of the key that left the log since the counter last matched.';
comment on column recon.counter_drift.units_left is
    'What these added up to: usage of a counter that would be lowered, credits of one that would be raised.';
comment on column recon.counter_drift.used_units is
    'What the events of positive quantity add up to, settled or not.';
comment on column recon.counter_drift.credit_units is 'What those of negative quantity add up to.';
comment on column recon.counter_drift.credit_count is 'How many of negative quantity there are.';
comment on column recon.counter_drift.doubts is
    'What about the log makes the key doubtful; also where it is left alone for another reason.';
comment on column recon.counter_drift.seal_id is
    'The seal that the counter was compared with, instead of the log; null in an open month.';
-- Not valid, as the next: what was there before obeyed a narrower list, and was not read again.
alter table recon.counter_drift add constraint counter_drift_outcome_check
    check (outcome in ('repaired', 'in_sync', 'deferred', 'failed', 'held', 'doubtful')) not valid;

-- The ledger of repairs.
create table recon.counter_repair (
    id bigint generated always as identity primary key,
    run_id text not null,
    repaired_at timestamptz not null default clock_timestamp(),
    gateway_name text not null,
    usage_type text not null,
    gateway_customer_id text not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    kind text not null,
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
    ) stored,
    drift_id bigint,
    undoes bigint
);
alter table recon.counter_repair add constraint counter_repair_kind_check
    check (kind in ('missing', 'under', 'over', 'orphan', 'undo')) not valid;
create index counter_repair_by_run on recon.counter_repair (run_id);
create index counter_repair_by_customer on recon.counter_repair (gateway_customer_id);
create unique index counter_repair_by_drift on recon.counter_repair (drift_id);
create unique index counter_repair_undone_once on recon.counter_repair (undoes) where undoes is not null;
create trigger counter_repair_is_append_only
    before update or delete or truncate on recon.counter_repair
    for each statement execute function recon.refuse_change();
comment on table recon.counter_repair is
    'Append only. For each key: counter now = increments by the application + sum of usage_delta.';
comment on column recon.counter_repair.drift_id is
    'The row of recon.counter_drift that was repaired; null for a change that no comparison asked for.';
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
    not_undone jsonb,
    sealed bigint
);
comment on table recon.undo is 'Who had the repairs of which run taken back, why, and what became of that.';
comment on column recon.undo.sealed is 'Repairs that were not taken back because their month is sealed.';


-- What people decided.

create table recon.control (
    id bigint generated always as identity primary key,
    action text not null check (action in ('pause', 'resume')),
    reason text,
    acted_by text not null,
    acted_at timestamptz not null default clock_timestamp(),
    until timestamptz,
    check (action = 'resume' or reason is not null)
);
create trigger control_is_append_only
    before update or delete or truncate on recon.control
    for each statement execute function recon.refuse_change();
comment on table recon.control is
    'Append only: who paused and resumed repairs, and why. The newest row says what is so; a pause may end by itself.';

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

create table recon.accepted_usage (
    gateway_name text not null,
    usage_type text not null,
    accepted_at timestamptz not null default clock_timestamp(),
    accepted_by text,
    reason text,
    run_id text,
    first_partition text,
    primary key (gateway_name, usage_type)
);
comment on table recon.accepted_usage is
    'Metered usages whose first comparison a person has approved, or that had no drift; no other is repaired.';
comment on column recon.accepted_usage.first_partition is
    'The first billing month that is accepted: repairs in months before it wait for an approval. Null: every month is.';

create table recon.retention (
    id bigint generated always as identity primary key,
    before_partition text not null,
    reason text not null,
    declared_by text not null,
    declared_at timestamptz not null default clock_timestamp()
);
create trigger retention_is_append_only
    before update or delete or truncate on recon.retention
    for each statement execute function recon.refuse_change();
comment on table recon.retention is
    'Billing months before this one are no longer in the log; the latest row counts. Counters are kept as they are.';


-- Sealed months: what their counters follow instead of the log.

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
    lake_source jsonb,
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
comment on column recon.month_seal.lake_source is
    'Of a month that followed the lake: the count that was sealed, its engine, lake, mapping, files; null: the log.';

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

create table recon.archived_month (
    id bigint generated always as identity primary key,
    seal_id bigint not null,
    archived_at timestamptz not null default clock_timestamp(),
    archived_by text not null,
    run_id text,
    seen pg_snapshot not null,
    folder text not null,
    manifest_checksum text not null,
    file_count bigint not null,
    row_count bigint not null,
    byte_count bigint not null
);
create index archived_month_by_seal on recon.archived_month (seal_id);
create trigger archived_month_is_append_only
    before update or delete or truncate on recon.archived_month
    for each statement execute function recon.refuse_change();
comment on table recon.archived_month is
    'Append only: the archives of sealed months, each read back before it was recorded. The newest of a seal counts.';
comment on column recon.archived_month.seen is
    'The snapshot at which the events were read: events that it does not see are in no file.';
comment on column recon.archived_month.folder is 'Where the files and their manifest are; never holds a password.';
comment on column recon.archived_month.manifest_checksum is
    'SHA-256 of the manifest, which holds that of each file.';
comment on column recon.archived_month.row_count is 'Rows in the files, those that do not count too.';


-- Parity: what a provider's meters have, beside the log.

create table recon.parity_key (
    gateway_name text not null,
    usage_type text not null,
    gateway_customer_id text not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    provider_customer text,
    provider_customer_count bigint not null default 0,
    event_count bigint not null default 0,
    elsewhere_count bigint not null default 0,
    elsewhere_units numeric not null default 0,
    first_noted_at timestamptz not null,
    compared_at timestamptz,
    compared_until timestamptz,
    compared_log_units numeric,
    provider_units numeric,
    difference_count bigint not null default 0,
    error text,
    news_at timestamptz,
    latest_at timestamptz,
    primary key (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
);
create index parity_key_by_provider on recon.parity_key (provider_customer) where provider_customer is not null;
comment on table recon.parity_key is
    'The keys that are compared with a meter: which have news in the log, and the last comparison of each.';
comment on column recon.parity_key.elsewhere_count is
    'Events whose timestamp lies in the period and whose label is another one.';
comment on column recon.parity_key.provider_units is
    'What the meter had in the window of the period, up to compared_until.';
comment on column recon.parity_key.error is 'Why the provider refused the customer; null if it did not.';
comment on column recon.parity_key.news_at is 'The beginning of the comparison that last found news of it in the log.';
comment on column recon.parity_key.latest_at is
    'No event that was news has a later time; until that time has come, it lies in no window.';

create table recon.parity_difference (
    id bigint generated always as identity primary key,
    gateway_name text not null,
    usage_type text not null,
    gateway_customer_id text not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    window_start timestamptz not null,
    window_end timestamptz not null,
    kind text not null check (
        kind in (
            'not_comparable', 'lagging', 'rejected', 'misplaced', 'missing', 'expired', 'over_reported', 'finalized'
        )
    ),
    log_units numeric not null,
    provider_units numeric not null,
    evidence text not null,
    foreign key (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
        references recon.parity_key on delete cascade
);
create index parity_difference_by_key
    on recon.parity_difference (gateway_name, usage_type, gateway_customer_id, period_start, period_end);
comment on table recon.parity_difference is
    'Where log and meter differ, as the last comparison of the key found; its class with the evidence.';

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

create table recon.sealed_parity (
    seal_id bigint primary key,
    key_count bigint not null,
    compared_count bigint not null,
    differing_count bigint not null,
    log_units numeric not null,
    provider_units numeric not null,
    oldest_comparison timestamptz
);
create trigger sealed_parity_is_append_only
    before update or delete or truncate on recon.sealed_parity
    for each statement execute function recon.refuse_change();
comment on table recon.sealed_parity is
    'Append only: what a provider''s meter had of a month when it was sealed, as far as it was compared.';


-- Months that were counted in a lake: what an engine counted there stands in the place of the log.

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

create view recon.stand_in as
    select
        seal.id as seal_id, seal.gateway_name, seal.usage_type, seal.partition, seal.nonzero_count,
        case when seal.lake_source is null then seal.acted_at else 'infinity' end as covers_until,
        coalesce((seal.lake_source ->> 'complete_until')::timestamptz, 'infinity') as complete_until
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

create view recon.stand_in_sum as
    select seal_id, gateway_customer_id, period_start, period_end, usage_count::numeric as usage_count
    from recon.sealed_counter
    union all
    select count_id, gateway_customer_id, period_start, period_end, usage_count
    from recon.lake_counter;
comment on view recon.stand_in_sum is 'The sums by key of seals and of counts in the lake.';


-- Backfills.

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
    skipped bigint not null default 0,
    constraint every_row_ended_in_one_way check (rows_read = inserted + duplicate + conflict + rejected)
);
create index backfill_batch_by_start on recon.backfill_batch (started_at);
create index backfill_batch_by_run on recon.backfill_batch (run_id);
comment on column recon.backfill_batch.partitions is
    'Billing months of the events that are in the log: inserted or duplicate.';
comment on column recon.backfill_batch.skipped is 'Rows that its mapping leaves out (skip_when); not among rows_read.';

-- The rows of a batch that were not taken.
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

-- What a backfill inserted and no repair has counted yet.
create table recon.uncounted_backfill (
    gateway_name text not null,
    usage_type text not null,
    gateway_customer_id text not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    inserted_xid xid8 not null default pg_current_xact_id(),
    units numeric not null,
    credit_units numeric not null default 0,
    primary key (gateway_name, usage_type, gateway_customer_id, period_start, period_end, inserted_xid)
);
comment on table recon.uncounted_backfill is
    'Units of backfilled events that no repair has counted yet, by key and chunk; only with RECON_SETTLE_SECONDS.';
comment on column recon.uncounted_backfill.inserted_xid is
    'The transaction that inserted the events, and this row with them.';
comment on column recon.uncounted_backfill.credit_units is
    'What the events of negative quantity add up to, which units contains.';

create function recon.are_one_instant(one timestamptz, other timestamptz) returns boolean
language sql stable as $one_instant$
    select one = other
        or exists (
            select
            from (values ('milliseconds', interval '500 us'), ('second', interval '500 ms')) as unit (name, half)
            where one in (date_trunc(unit.name, other), date_trunc(unit.name, other + unit.half))
                or other in (date_trunc(unit.name, one), date_trunc(unit.name, one + unit.half))
        )
$one_instant$;
comment on function recon.are_one_instant is
    'Whether two times are equal, or one is the other, cut or rounded to a millisecond or a second.';

create function recon.counter_bounds(
    settled_sum numeric, visible_sum numeric, usage_count numeric,
    uncounted_units numeric, uncounted_usage_in_flight numeric, uncounted_credits_in_flight numeric
) returns table (least_sum numeric, most_sum numeric)
language sql immutable as $bounds$
    select
        case
            when uncounted_units > 0
                then least(greatest(in_flight.least_sum, usage_count + uncounted_units), in_flight.most_sum)
            else in_flight.least_sum
        end,
        case
            when uncounted_units < 0
                then greatest(least(in_flight.most_sum, usage_count + uncounted_units), in_flight.least_sum)
            else in_flight.most_sum
        end
    from (
        select
            -- Never beyond what the log says without them: events of a backfill may have left it.
            least(
                settled_sum + coalesce(uncounted_usage_in_flight, 0),
                greatest(visible_sum + coalesce(uncounted_credits_in_flight, 0), settled_sum),
                visible_sum
            ) as least_sum,
            greatest(
                visible_sum + coalesce(uncounted_credits_in_flight, 0),
                least(settled_sum + coalesce(uncounted_usage_in_flight, 0), visible_sum),
                settled_sum
            ) as most_sum
    ) as in_flight
$bounds$;
comment on function recon.counter_bounds is
    'The least and the most that a counter may be, where units of a backfill are counted nowhere yet: on top of it.';

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


-- Alerts: what fails, what is reported of it, and to whom that has been delivered.

create table recon.alert_watch (
    is_known boolean primary key default true check (is_known),
    watching_since timestamptz not null default clock_timestamp(),
    paused_at timestamptz,
    runs_noticed_until timestamptz not null
);
comment on table recon.alert_watch is
    'One row: up to where runs were noticed, and when the pipeline was last seen paused. Whoever notices locks it.';

create table recon.alert_run (
    run_id text primary key,
    ended_at timestamptz not null
);
create index alert_run_by_end on recon.alert_run (ended_at);
comment on table recon.alert_run is 'Runs of Dagster''s that ended and were noticed: each is noticed once.';

create table recon.alert_state (
    subject text primary key,
    severity text not null check (severity in ('error', 'warn')),
    partitions text[] not null,
    details text not null,
    failing_since timestamptz not null,
    told_at timestamptz not null
);
comment on table recon.alert_state is 'What fails now; a subject that passes again has no row.';

create table recon.alert_outbox (
    id bigint generated always as identity primary key,
    noticed_at timestamptz not null default clock_timestamp(),
    severity text not null check (severity in ('error', 'warn')),
    is_resolved boolean not null,
    title text not null,
    body text not null,
    failing text[] not null,
    resolved text[] not null
);
comment on table recon.alert_outbox is
    'Every message, written in the transaction that noticed what it tells of, before anything is sent.';
comment on column recon.alert_outbox.failing is 'Names of the incidents that are open after the message.';
comment on column recon.alert_outbox.resolved is 'Names of the incidents that are over.';

create table recon.alert_delivery (
    alert_id bigint not null references recon.alert_outbox on delete cascade,
    target text not null,
    target_name text not null,
    attempts integer not null default 0,
    next_attempt_at timestamptz not null default clock_timestamp(),
    claimed_until timestamptz,
    delivered_at timestamptz,
    error text,
    primary key (alert_id, target)
);
create index alert_undelivered on recon.alert_delivery (target, alert_id) where delivered_at is null;
comment on column recon.alert_delivery.target is 'A fingerprint of the address, which holds secrets and is not stored.';
