"""Everything that a run relies on in the billing database, checked one by one, each with its fix.

Changes nothing.
"""

import time
from collections.abc import Iterator

from sqlalchemy import Connection

from recon_pipeline.core.findings import Finding, failed, noted, passed
from recon_pipeline.store.counters import holds
from recon_pipeline.store.counters.pause import read_pause
from recon_pipeline.store.log import ingest_xid
from recon_pipeline.store.log.declared_key import refuses_repetitions
from recon_pipeline.store.log.tables import COUNTERS, EVENTS, Server, describe_server
from recon_pipeline.store.postgres.database import declared_identity
from recon_pipeline.store.postgres.schema_version import SCHEMA_VERSION
from recon_pipeline.store.postgres.statements import statement
from recon_pipeline.store.records import migrate
from recon_pipeline.store.records.retention import read_retention
from recon_pipeline.store.records.table_requirements import (
    check_counters,
    check_events,
    check_increments,
    check_precision,
    check_subscriptions,
    check_table,
)

OLDEST_VERSION = 15
CLOCK_SKEW_SECONDS = 5.0


def check_database(connection: Connection) -> Iterator[Finding]:
    """Check server, tables, privileges and schema `recon`.

    Args:
        connection: In a transaction.

    Yields:
        A finding for each requirement, in the order in which they build on each other.
    """
    server = describe_server(connection)
    yield from _server(server, time.time() - server.clock_seconds)
    events = yield from check_table(connection, EVENTS, server)
    if events is not None:
        identity = declared_identity(connection)
        left = ingest_xid.lacking(connection, refuses_repetitions=refuses_repetitions(events, identity))
        yield from check_events(events, identity, left, server)
        yield from check_increments(left, connection, events)
    counters = yield from check_table(connection, COUNTERS, server)
    if counters is not None:
        yield from check_counters(counters, server)
        if events is not None:
            yield from check_precision(events, counters)
    yield from check_subscriptions(connection, server)
    yield from _schema(connection, server)


def _server(server: Server, skew_seconds: float) -> Iterator[Finding]:
    supported = server.version >= OLDEST_VERSION * 10_000
    yield (
        passed("server version", f"PostgreSQL {server.version_name}")
        if supported
        else failed(
            "server version",
            f"PostgreSQL {server.version_name} is older than {OLDEST_VERSION}",
            f"Upgrade the server to PostgreSQL {OLDEST_VERSION} or later.",
        )
    )
    writable = not server.is_standby and not server.is_read_only
    yield (
        passed("primary", "takes writes")
        if writable
        else failed(
            "primary",
            "a standby: it lags behind and takes no writes" if server.is_standby else "transactions are read only",
            "Point DATABASE_URL at the primary.",
        )
    )
    yield (
        passed("clock", f"{abs(skew_seconds):.1f} s apart")
        if abs(skew_seconds) <= CLOCK_SKEW_SECONDS
        else noted(
            "clock",
            f"this machine and the database are {abs(skew_seconds):.0f} s apart; only schedules are affected, since "
            "ages are taken from the database's clock",
            "Run a time service on this machine.",
        )
    )


def _schema(connection: Connection, server: Server) -> Iterator[Finding]:
    if not server.has_schema:
        yield failed("schema recon", f"not in {server.database}", "recon init")
        return
    lacking = connection.execute(statement("describe_schema")).scalars().all()
    if not server.can_use_schema or lacking:
        yield failed(
            "schema recon",
            f"{server.role} may not {'use it' if not server.can_use_schema else 'work with ' + ', '.join(lacking)}",
            f"grant usage on schema recon to {server.role}; "
            f"grant select, insert, update, delete on all tables in schema recon to {server.role};",
        )
        return
    installed = migrate.installed_version(connection)
    if installed == SCHEMA_VERSION:
        yield passed("schema recon", f"version {installed}")
        yield from _control(connection)
    else:
        is_newer = installed is not None and installed > SCHEMA_VERSION
        yield failed(
            "schema recon",
            f"version {installed or 'none'}, this release works on {SCHEMA_VERSION}",
            "Run the release that prepared it, or a newer one: upgrade this package." if is_newer else "recon init",
        )


def _control(connection: Connection) -> Iterator[Finding]:
    """Pauses and holds: what keeps runs from repairing, because a person said so."""
    pause, held = read_pause(connection), holds.open_holds(connection)
    yield passed("repairs", "not paused") if pause is None else noted("repairs", f"paused {pause}", "recon resume")
    retention = read_retention(connection)
    if retention is not None:
        yield noted("retention", f"{retention}; no run compares them", "recon retention shows and changes it")
    if held:
        customers = len({hold.gateway_customer_id for hold in held})
        yield noted("holds", f"{customers:,} customers are held, the next hold ends {held[0].until:%Y-%m-%d %H:%M} UTC")
