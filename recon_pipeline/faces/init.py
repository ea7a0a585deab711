"""`recon init`: prepares a database, or prints the SQL for a person to run instead."""

from collections.abc import Callable, Sequence

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from recon_pipeline.core.approving import SEE_ALL
from recon_pipeline.core.errors import ReconError
from recon_pipeline.faces import published
from recon_pipeline.store.log import ingest_xid
from recon_pipeline.store.log import ingest_xid_installation as installation
from recon_pipeline.store.log.billing_tables import require_there
from recon_pipeline.store.log.declared_key import refuses_repetitions, wider_key
from recon_pipeline.store.log.ingest_xid import Need
from recon_pipeline.store.log.shape import unsound_kind, wrong_columns
from recon_pipeline.store.log.tables import EVENTS, Server, Table, describe_server, describe_table
from recon_pipeline.store.postgres.database import BillingDatabase, begin, declared_identity
from recon_pipeline.store.postgres.errors import LOCK_CONFLICTS, sqlstate
from recon_pipeline.store.postgres.pooler import require_own_session
from recon_pipeline.store.postgres.schema_version import SCHEMA_VERSION
from recon_pipeline.store.postgres.statements import as_written
from recon_pipeline.store.records import accepted_usages, migrate

_MAY_NOT = "42501"  # insufficient_privilege
_INCREMENTAL = "Runs will be incremental: they read what is new in the log."
_FIRST_RUN = (
    "The first run asks: unless every counter matches, it repairs nothing, shows what it would change, and waits for "
    f"an approval. To see it: {SEE_ALL}"
)
_FULL = "Runs will be in full mode, reading the whole log:"
_LEFT_ALONE = (
    " The log is left as it is, as recon init --without-ingest-xid asked. To change that: recon init --with-ingest-xid"
)


def prepare(
    database: BillingDatabase,
    *,
    with_billing_tables: bool,
    with_ingest_xid: bool | None = None,
    subscribers_have_it: bool = False,
    on_step: Callable[[str], None] = lambda _: None,
) -> str:
    """Create or update schema `recon`, and make the log readable in increments; running it again changes nothing.

    Args:
        database: To prepare.
        with_billing_tables: First create the application's tables, if they are not there.
        with_ingest_xid: Add the column `ingest_xid` to the log, with its index and triggers. None: unless an
            earlier call left the log as it is.
        subscribers_have_it: Also where the log is published by logical replication.
        on_step: Is called with each statement that alters the log, before it runs.

    Returns:
        What was done, a sentence for each part.

    Raises:
        ReconError: The application's tables or a privilege are missing, the database is a standby or a pooler in
            transaction mode, a lock was not granted, or the log is published.
    """
    require_own_session(database)
    with database.connection(any_schema_version=True) as connection:
        with begin(connection):
            server = describe_server(connection)
            if server.is_standby:
                raise ReconError(
                    f"{database.name} is a standby and takes no changes.",
                    changed="Nothing was changed.",
                    fix="Point DATABASE_URL at the primary.",
                )
            if not server.has_schema and not server.can_create_schema:
                raise ReconError(
                    f"Role {server.role} may not create a schema in {server.database}.",
                    changed="Nothing was changed.",
                    fix=f"Let its owner run: create schema recon authorization {server.role}; then run this again. "
                    "Or give a person the output of recon init --print.",
                )
            before = migrate.installed_version(connection) if server.has_schema else None
            if not with_billing_tables:
                require_there(connection, server)
            if before != SCHEMA_VERSION and not subscribers_have_it:
                published.require_no_subscriber_of_all_tables(connection)
        try:
            changed = migrate.upgrade(connection, with_billing_tables=with_billing_tables)
        except DBAPIError as error:
            if sqlstate(error) not in LOCK_CONFLICTS:
                raise
            raise ReconError(
                f"Another session held a lock in {database.name} in each of {migrate.LOCK_ATTEMPTS} attempts.",
                changed="Nothing was changed.",
                fix="Look in pg_stat_activity for a transaction that is open for long, and run this again.",
            ) from error
        tables = " The billing tables are there." if with_billing_tables else ""
        state = (
            f"at version {SCHEMA_VERSION} now (was: {before or 'not there'})"
            if changed
            else f"at version {SCHEMA_VERSION} already"
        )
        is_wanted = _decide(connection, server, with_ingest_xid, subscribers_have_it=subscribers_have_it)
        log = _prepare_log(connection, server, with_ingest_xid=is_wanted, on_step=on_step)
        log += _undecided_identity(connection)
        with begin(connection):
            first = "" if accepted_usages.is_any_accepted(connection) else f"\n{_FIRST_RUN}"
    return f"Schema recon in {database.name} is {state}.{tables} {log}".rstrip() + first


def _prepare_log(
    connection: Connection, server: Server, *, with_ingest_xid: bool, on_step: Callable[[str], None]
) -> str:
    """Prepare the log for the incremental mode if that is wanted and allowed; returns the mode that runs will have."""
    with begin(connection):
        events = describe_table(connection, EVENTS)
        if events is None:
            return ""
        wrong = wrong_columns(events, EVENTS)
        unsound = unsound_kind(events, EVENTS)
        if wrong or unsound is not None:
            why = f"{'; '.join(wrong)}." if unsound is None else unsound[0]
            return f"The log was left as it is, and runs will be refused: {why} See recon doctor."
        identity = declared_identity(connection)
        is_unique = refuses_repetitions(events, identity)
        left = ingest_xid.lacking(connection, refuses_repetitions=is_unique)
    if with_ingest_xid:
        try:
            left = installation.install(connection, refuses_repetitions=is_unique, on_step=on_step)
        except DBAPIError as error:
            if sqlstate(error) == _MAY_NOT:
                return _for_the_owner(connection, server, events, is_unique=is_unique, on_step=on_step)
            if sqlstate(error) not in LOCK_CONFLICTS:
                raise
            raise ReconError(
                f"Another session held a lock on {events.name} in each of {installation.LOCK_ATTEMPTS} attempts.",
                changed="Schema recon is ready, and runs will read the whole log until this is done.",
                fix="Look in pg_stat_activity for a transaction that is open for long, and run recon init again: "
                "it continues where it stopped.",
            ) from error
    required = [lack for lack in left if lack.rules_out_increments]
    if not required:
        return _INCREMENTAL
    said = f"{_FULL} {required[0].lacks}."
    if not with_ingest_xid:
        return said + _LEFT_ALONE
    advised = [lack.statement or "" for lack in required if lack.kind is Need.ADVISED]
    return said + (f" To change that:\n{_listed(advised)}" if advised else "")


def _decide(connection: Connection, server: Server, asked: bool | None, *, subscribers_have_it: bool) -> bool:
    """Whether to add the column: what a person asks now, or asked before; the latest answer is kept."""
    if asked is None:
        with begin(connection):
            asked = subscribers_have_it or not ingest_xid.is_left_alone(connection)
    if asked and not subscribers_have_it:
        published.require_no_subscriber_of_the_log(connection)
    try:
        with begin(connection):
            ingest_xid.remember(connection, left_alone=not asked)
    except DBAPIError as error:
        if sqlstate(error) != _MAY_NOT:
            raise
        raise ReconError(
            f"Whether recon init may alter the log is kept in a comment on schema recon, and role {server.role} does "
            "not own that schema.",
            changed="Schema recon is ready. The log was left as it is.",
            fix="Run the same command as the owner of schema recon, once.",
        ) from error
    return asked


def _undecided_identity(connection: Connection) -> str:
    """What the owner has to declare if the log's keys and RECON_EVENT_IDENTITY differ."""
    with begin(connection):
        events = describe_table(connection, EVENTS)
        wider = None if events is None else wider_key(events, declared_identity(connection))
    if wider is None:
        return ""
    return f"\n{wider}. Drifted counters whose events share these are left as they are. {wider.ways_to_declare}"


def _for_the_owner(
    connection: Connection, server: Server, events: Table, *, is_unique: bool, on_step: Callable[[str], None]
) -> str:
    """What the owner of the log runs by hand, as we may not; lets the owner name the triggers' function."""
    with begin(connection):
        log = ingest_xid.owner_of_log(connection)
        grant = log.missing_grant
        if grant is not None and log.is_ours_to_grant:
            on_step(grant)
            ingest_xid.let_owner_use_schema(connection, log)
            grant = None
        left = ingest_xid.lacking(connection, refuses_repetitions=is_unique)
    statements = _listed([*([grant] if grant else []), *(lack.statement for lack in left if lack.statement)])
    may_not = f"role {server.role} may not alter {events.name}."
    if any(lack.rules_out_increments for lack in left):
        return f"{_FULL} {may_not} To change that, its owner {log.owner} runs, then recon init again:\n{statements}"
    return f"{_INCREMENTAL} Some of it is missing still: {may_not} Its owner {log.owner} runs:\n{statements}"


def _listed(statements: Sequence[str]) -> str:
    return "\n".join(f"  {statement};" for statement in statements)


def printed(*, with_billing_tables: bool, with_ingest_xid: bool = True, subscribers_have_it: bool = False) -> str:
    """The SQL for a person to run: role, billing tables if asked for, schema `recon`, what the log needs.

    It stops before it changes anything where a subscription would stop, unless the subscribers are ready.
    """
    parts = [
        "" if subscribers_have_it else published.stopping_script(with_ingest_xid=with_ingest_xid),
        as_written("billing_tables") if with_billing_tables else "",
        as_written("grants"),
        "-- The rest belongs to that role.\nset role recon_pipeline;",
        migrate.upgrade_sql(),
        "reset role;",
        as_written("policies"),
        as_written("ingest_xid") if with_ingest_xid else "",
    ]
    return "\n".join(part for part in parts if part)
