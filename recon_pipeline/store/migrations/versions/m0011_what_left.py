"""What leaves the log before any sum has counted it is noted by the triggers; credits of a backfill are noted apart.

Rules that several statements apply are functions: when two times are one, and what a counter may be beside a backfill.
"""

from alembic import op

revision = "0011"
down_revision = "0010"

_COLUMNS = """
alter table recon.invalidated_key
    add events_left bigint not null default 0,
    add units_left numeric not null default 0,
    add credits_left numeric not null default 0;
comment on column recon.invalidated_key.events_left is
    'Events that left the log above the horizon, which no stored sum can miss.';
comment on column recon.invalidated_key.units_left is 'What these events added up to, those of positive quantity.';
comment on column recon.invalidated_key.credits_left is
    'What those of negative quantity added up to, as a positive number.';
alter table recon.uncounted_backfill add credit_units numeric not null default 0;
comment on column recon.uncounted_backfill.credit_units is
    'What the events of negative quantity add up to, which units contains.';
alter table recon.counter_drift add used_units numeric, add credit_units numeric, add credit_count bigint;
comment on column recon.counter_drift.used_units is
    'What the events of positive quantity add up to, settled or not.';
comment on column recon.counter_drift.credit_units is 'What those of negative quantity add up to.';
comment on column recon.counter_drift.credit_count is 'How many of negative quantity there are.';
"""

_FUNCTIONS = """
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
"""

_NOTE_CHANGED_EVENTS = """
create or replace function recon.note_changed_events() returns trigger
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
"""


def upgrade() -> None:
    """Add to the tables and functions, and replace the one that the triggers of `recon init` call."""
    op.execute(_COLUMNS)
    op.execute(_FUNCTIONS)
    op.execute(_NOTE_CHANGED_EVENTS)


def downgrade() -> None:
    """Refuse, as version 0001 does."""
    raise NotImplementedError("drop schema recon by hand if the ledger of repairs may be lost")
