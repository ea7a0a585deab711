"""What a run relies on in the application's tables, each with its fix.

Changes nothing.
"""

from collections.abc import Generator, Iterator, Sequence

from sqlalchemy import Connection

from recon_pipeline.core.findings import Finding, failed, noted, passed
from recon_pipeline.store.log import ingest_xid
from recon_pipeline.store.log.ingest_xid import Lack, Need
from recon_pipeline.store.log.shape import COUNTER_KEY, REQUEST_KEY, has_unique_key, unsound_kind, wrong_columns
from recon_pipeline.store.log.tables import SUBSCRIPTIONS, Server, Table, describe_table

LACKS_SHOWN = 3


def check_table(connection: Connection, name: str, server: Server) -> Generator[Finding, None, Table | None]:
    """What holds for each table: it is there, of a kind and shape to work with, and hides nothing; returns it."""
    table = describe_table(connection, name)
    if table is None:
        yield failed(
            name,
            f"not found on the search_path ({server.search_path}) of {server.database}",
            "Point DATABASE_URL at the application's database, or: "
            f"alter role {server.role} set search_path = <schema>; "
            "For a new project: recon init --with-billing-tables.",
        )
        return None
    wrong = wrong_columns(table, name)
    if wrong:
        yield failed(f"{name} columns", "; ".join(wrong), f"Check that {table.name} is the application's own {name}.")
        return None
    yield passed(f"{name} columns", f"all present in {table.name}")
    unsound = unsound_kind(table, name)
    if unsound is not None:
        yield failed(f"{name} kind", *unsound)
    yield (
        passed(f"{name} readable", "select granted")
        if table.can_select
        else failed(
            f"{name} readable",
            f"{server.role} may not read {table.name}",
            f"grant select on {table.name} to {server.role};",
        )
    )
    yield (
        failed(
            f"{name} row level security",
            f"active for {server.role}: it hides rows without an error",
            f"alter role {server.role} bypassrls;",
        )
        if table.row_security_active
        else passed(f"{name} row level security", "hides nothing from us")
    )
    return table


def check_events(events: Table, left: Sequence[Lack], server: Server) -> Iterator[Finding]:
    """What holds for the log: its indexes and checks, and that our role can neither change nor delete an event."""
    unindexed = [lack for lack in left if lack.kind is Need.ADVISED]
    if has_unique_key(events, REQUEST_KEY):
        yield passed("request ids", "unique by constraint")
    elif not unindexed and events.kind in "rp":
        yield noted("request ids", "not unique by constraint: repeated ones are found by index and counted once")
    else:
        yield noted(
            "request ids",
            "neither unique nor indexed: repeated ones are found by reading the whole log, which is right but slow",
            _fix(unindexed),
        )
    yield (
        passed("events by customer", "indexed")
        if "gateway_customer_id" in events.leading_index_columns
        else noted(
            "events by customer",
            "not indexed: each chunk of repairs reads the whole log",
            f"create index concurrently on {events.name} (gateway_customer_id, event_timestamp desc);"
            if events.kind != "p"
            else f"For each partition of {events.name}: "
            "create index concurrently on <partition> (gateway_customer_id, event_timestamp desc);",
        )
    )
    unchecked = {"quantity", "period_end"} - events.checked_columns
    yield (
        noted(
            "event checks",
            f"no CHECK on {' and '.join(sorted(unchecked))}: invalid events are never summed, and the check "
            "events_are_valid counts them",
        )
        if unchecked
        else passed("event checks", "the table refuses invalid events")
    )
    writable = events.updatable_columns or events.can_delete
    yield (
        noted(
            "event log is sacred",
            f"{server.role} could change or delete events; the product never does",
            "See docs/privileges.md.",
        )
        if writable
        else passed("event log is sacred", f"{server.role} can neither change nor delete an event")
    )


def check_increments(left: Sequence[Lack], connection: Connection, events: Table) -> Iterator[Finding]:
    """Which mode runs will be in, and why; full is slower, and does not repair keys with very many events."""
    in_the_way = [lack for lack in left if lack.rules_out_increments]
    others = [lack for lack in left if not lack.rules_out_increments]
    yield (
        noted(
            "mode",
            "full, every run reads the whole log, and keys with very many events are not repaired: "
            f"{_sentences(in_the_way)}",
            _fix(in_the_way),
        )
        if in_the_way
        else passed("mode", "incremental: a run reads what is new in the log")
    )
    if others:
        yield noted("partitions", _sentences(others), _fix(others))
    is_readable = events.can_select and not events.row_security_active
    if not in_the_way and is_readable and ingest_xid.has_foreign_ids(connection):
        yield noted(
            "transaction ids",
            "events carry transaction ids that this server has not come to, as after a restore on another server: "
            "every run reads them again",
            f"alter table {events.name} drop column ingest_xid; then recon init",
        )


def _sentences(lacks: Sequence[Lack]) -> str:
    more = len(lacks) - LACKS_SHOWN
    return "; ".join(lack.lacks for lack in lacks[:LACKS_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _fix(lacks: Sequence[Lack]) -> str:
    """What recon init does and what is the operator's to decide; empty where there is no fix."""
    is_ours = any(lack.statement is not None and lack.kind is not Need.ADVISED for lack in lacks)
    advised = [f"{lack.statement};" for lack in lacks if lack.kind is Need.ADVISED]
    return "\n".join([*(["recon init"] if is_ours else []), *advised])


def check_counters(counters: Table, server: Server) -> Iterator[Finding]:
    """What holds for the counters: their key, and that they can be repaired."""
    key = ", ".join(COUNTER_KEY)
    yield (
        passed("counter key", "unique")
        if has_unique_key(counters, frozenset(COUNTER_KEY))
        else failed(
            "counter key",
            f"{counters.name} has no unique key on {key}",
            f"create unique index concurrently on {counters.name} ({key});",
        )
    )
    yield (
        passed("counter id", "has a default")
        if "id" in counters.defaulted
        else failed(
            "counter id",
            f"{counters.name}.id has no default, so a missing counter cannot be created",
            f"alter table {counters.name} alter column id set default gen_random_uuid();",
        )
    )
    missing = [column for column in ("usage_count", "updated_at") if column not in counters.updatable_columns]
    yield (
        passed("counters can be repaired", "insert, and update of usage_count and updated_at granted")
        if counters.can_insert and not missing
        else failed(
            "counters can be repaired",
            f"{server.role} lacks {'insert' if not counters.can_insert else 'update of ' + ', '.join(missing)}",
            f"grant insert, update (usage_count, updated_at) on {counters.name} to {server.role};",
        )
    )
    yield (
        passed("counters by period", "indexed")
        if "period_start" in counters.leading_index_columns or counters.kind == "p"
        else noted(
            "counters by period",
            "not indexed: each run glances at the counters of all months, those of closed ones too",
            f"create index concurrently on {counters.name} (period_start);",
        )
    )


def check_subscriptions(connection: Connection, server: Server) -> Iterator[Finding]:
    """Whether limits are known."""
    if describe_table(connection, SUBSCRIPTIONS) is None:
        yield noted(
            SUBSCRIPTIONS,
            f"not found on the search_path ({server.search_path}): limits and quota transitions are unknown, "
            "all else works",
        )
    else:
        yield from check_table(connection, SUBSCRIPTIONS, server)
