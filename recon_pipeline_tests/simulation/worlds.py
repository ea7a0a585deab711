"""The database in which a plan is played: the application's tables as they are in that world, and our role."""

from urllib.parse import urlsplit

from recon_pipeline_tests.reconciliation.billing import connected
from recon_pipeline_tests.reconciliation.conftest import full_template, install_increments
from recon_pipeline_tests.simulation.migrations import PARTITIONS
from recon_pipeline_tests.simulation.plan import World
from recon_pipeline_tests.support.postgres import PostgresServer

ROLE = "recon_simulated"
_COUNTER_CHANGES = """
    create schema simulated;
    create table simulated.counter_change (
        id bigint generated always as identity,
        gateway_customer_id text,
        period_start timestamptz,
        period_end timestamptz,
        usage_count bigint,
        is_gone boolean
    );
    create function simulated.note_counter() returns trigger language plpgsql security definer as $note$
    declare
        noted billing_usage_counters := case when tg_op = 'DELETE' then old else new end;
    begin
        insert into simulated.counter_change (gateway_customer_id, period_start, period_end, usage_count, is_gone)
        values (noted.gateway_customer_id, noted.period_start, noted.period_end, noted.usage_count, tg_op = 'DELETE');
        return null;
    end
    $note$;
    create trigger note_counter after insert or update or delete on billing_usage_counters
        for each row execute function simulated.note_counter();
"""
"""The committed counters can be read from here while somebody has their table for himself."""

_NOT_UNIQUE = """
    alter table billing_usage_events drop constraint billing_usage_events_gateway_name_request_id_key;
    alter table billing_usage_events drop constraint billing_usage_events_quantity_check;
    alter table billing_usage_counters drop constraint billing_usage_counters_usage_count_check;
    create index on billing_usage_events (request_id);
"""
_PARTITIONED = """
    create table partitioned (like billing_usage_events including defaults) partition by range (period_start);
    drop table billing_usage_events;
    alter table partitioned rename to billing_usage_events;
    alter table billing_usage_counters drop constraint billing_usage_counters_usage_count_check;
    alter table billing_usage_events add primary key (id, period_start);
    create index on billing_usage_events (request_id);
    create index on billing_usage_events (gateway_customer_id, event_timestamp desc);
""" + "".join(
    f"create table {name} partition of billing_usage_events for values from ('{first}') to ('{end}');"
    for name, (first, end) in PARTITIONS.items()
)
_NUMERIC = "alter table billing_usage_events alter column quantity type numeric"
_LOOSE = """
    alter table billing_usage_events alter column period_end drop not null;
    alter table billing_usage_events alter column gateway_customer_id drop not null;
    alter table billing_usage_counters alter column usage_count drop not null;
    alter table billing_usage_counters alter column gateway_customer_id drop not null;
"""
_GUARDED = f"""
    do $role$
    begin
        if not exists (select from pg_roles where rolname = '{ROLE}') then
            create role {ROLE} login;
        end if;
    end
    $role$;
    grant select on billing_usage_events, billing_subscriptions to {ROLE};
    grant select, insert on billing_usage_counters to {ROLE};
    grant update (usage_count, updated_at) on billing_usage_counters to {ROLE};
    alter schema recon owner to {ROLE};
    do $owner$
    declare
        name text;
    begin
        for name in
            select oid::regclass::text from pg_class
            where relnamespace = 'recon'::regnamespace and relkind in ('r', 'p', 'v')
        loop
            execute format('alter table %s owner to {ROLE}', name);
        end loop;
    end
    $owner$;
"""


def base_template(server: PostgresServer) -> str:
    """The template of what every world has."""
    return server.template("simulated", _watch_counters, on=full_template(server))


def make(world: World, url: str) -> None:
    """Make of a base what a world is."""
    with connected(url, autocommit=True) as connection:
        if world.is_partitioned:
            connection.execute(_PARTITIONED.encode())
        elif not world.is_unique:
            connection.execute(_NOT_UNIQUE)
        if world.is_numeric:
            connection.execute(_NUMERIC)
        if world.is_loose:
            connection.execute(_LOOSE)
    if world.is_incremental:
        install_increments(url)
    if world.is_guarded:
        with connected(url, autocommit=True) as connection:
            connection.execute(_GUARDED.encode())


def _watch_counters(url: str) -> None:
    with connected(url, autocommit=True) as connection:
        connection.execute(_COUNTER_CHANGES)


def url_of_product(world: World, url: str) -> str:
    """The database as the product connects to it."""
    if not world.is_guarded:
        return url
    parts = urlsplit(url)
    return parts._replace(netloc=f"{ROLE}@{parts.netloc.rpartition('@')[2]}").geturl()
