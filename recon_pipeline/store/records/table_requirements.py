"""The requirements of a run on the application's tables, each with its fix.

Changes nothing.
"""

from collections.abc import Generator, Iterator, Sequence

from sqlalchemy import Connection

from recon_pipeline.core.event_identity import EventIdentity
from recon_pipeline.core.findings import Finding, failed, noted, passed
from recon_pipeline.store.log import ingest_xid
from recon_pipeline.store.log.declared_key import refuses_repetitions, wider_key
from recon_pipeline.store.log.ingest_xid import Lack, Need
from recon_pipeline.store.log.row_security import hidden_rows, see_every_row
from recon_pipeline.store.log.shape import COUNTER_KEY, has_unique_key, unsound_kind, wrong_columns
from recon_pipeline.store.log.tables import EVENTS, SUBSCRIPTIONS, Server, Table, describe_table

LACKS_SHOWN = 3


def check_table(connection: Connection, name: str, server: Server) -> Generator[Finding, None, Table | None]:
    """Check that a table exists, has the right kind and columns, and hides nothing; returns it."""
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
    hidden = hidden_rows(table, server.role)
    yield (
        passed(f"{name} row level security", "hides nothing from us")
        if hidden is None
        else failed(f"{name} row level security", *hidden)
    )
    return table


def check_events(events: Table, identity: EventIdentity, left: Sequence[Lack], server: Server) -> Iterator[Finding]:
    """Check the log: its keys, indexes and checks, and that our role can neither change nor delete events."""
    yield _check_identity(events, identity, [lack for lack in left if lack.kind is Need.ADVISED])
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


def _check_identity(events: Table, identity: EventIdentity, unindexed: Sequence[Lack]) -> Finding:
    """Whether the owner and the log declare the same event identity."""
    name = "event identity"
    if refuses_repetitions(events, identity):
        return passed(name, f"{identity}: unique by constraint")
    wider = wider_key(events, identity)
    if wider is not None:
        what = f"{wider}. Drifted counters whose events share these are left as they are"
        return failed(name, what, wider.ways_to_declare)
    if not unindexed and events.kind in "rp":
        return noted(
            name, f"{identity}: not unique by constraint, so repeated events are found by index and counted once"
        )
    return noted(
        name,
        f"{identity}: neither unique nor indexed, so repeated events are found by reading the whole log, which is "
        "right but slow",
        _fix(unindexed),
    )


def check_increments(left: Sequence[Lack], connection: Connection, events: Table) -> Iterator[Finding]:
    """The mode of runs, and its reason; full mode is slower, and does not repair heavy keys."""
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
    if in_the_way or not events.can_select or events.hides_rows:
        return
    see_every_row(connection, EVENTS)
    if ingest_xid.has_foreign_ids(connection):
        yield noted(
            "transaction ids",
            "events carry transaction ids that this server has not come to, as after a restore on another server: "
            "every run reads them again",
            f"alter table {events.name} drop column ingest_xid; then recon init --with-ingest-xid",
        )


def _sentences(lacks: Sequence[Lack]) -> str:
    more = len(lacks) - LACKS_SHOWN
    return "; ".join(lack.lacks for lack in lacks[:LACKS_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _fix(lacks: Sequence[Lack]) -> str:
    """What recon init does, and what the operator decides; empty if there is no fix."""
    is_ours = any(lack.statement is not None and lack.kind is not Need.ADVISED for lack in lacks)
    advised = [f"{lack.statement};" for lack in lacks if lack.kind is Need.ADVISED]
    return "\n".join([*(["recon init --with-ingest-xid"] if is_ours else []), *advised])


def check_counters(counters: Table, server: Server) -> Iterator[Finding]:
    """Check the counters: their key, and that they can be repaired."""
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
    by_period = f"create index concurrently on {counters.name} (period_start, gateway_customer_id);"
    bare = counters.period_index_without_customer
    if bare is not None and counters.kind != "p":
        yield noted(
            "counters by period",
            f"{bare} has no customer: where statistics are older than the counters of a month, Postgres reads all of "
            "them to find one",
            f"{by_period} Then drop index concurrently {bare};",
        )
    elif "period_start" in counters.leading_index_columns or counters.kind == "p":
        yield passed("counters by period", "indexed")
    else:
        yield noted("counters by period", "not indexed: each run reads the counters of closed months too", by_period)


def check_precision(events: Table, counters: Table) -> Iterator[Finding]:
    """A note if log and counters keep the bounds of a period to different fractions of a second."""
    differing = [column for column in COUNTER_KEY[3:] if events.digits[column] != counters.digits[column]]
    kept = ", ".join(f"{column} to {events.digits[column]} and {counters.digits[column]}" for column in differing)
    if differing:
        yield noted(
            "periods",
            f"{events.name} and {counters.name} keep different digits of a second, {kept}: one period may be written "
            "in two ways, and such keys are left alone (periods_are_written_in_one_way)",
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
