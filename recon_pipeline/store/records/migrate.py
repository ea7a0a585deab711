"""Brings schema `recon` up to date, while the application writes.

Invariant: touches only schema `recon`, and takes no lock of the application's tables, which it creates on request where
there are none; waits briefly for a lock and tries again; two at once do the work once.
"""

from io import StringIO

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from recon_pipeline.core.errors import ReconError
from recon_pipeline.store.log.ingest_xid_installation import LOCK_MIGRATIONS
from recon_pipeline.store.log.tables import COUNTERS, EVENTS, SUBSCRIPTIONS, describe_server, describe_table
from recon_pipeline.store.postgres.database import begin
from recon_pipeline.store.postgres.errors import is_lock_conflict
from recon_pipeline.store.postgres.schema_version import SCHEMA_VERSION
from recon_pipeline.store.postgres.statements import labelled, statement

# Creates the schema that holds all that is the product's.
_CREATE_SCHEMA = labelled("create_schema", "create schema recon")

LOCK_ATTEMPTS = 10


def installed_version(connection: Connection) -> str | None:
    """The version of schema `recon` in this database, or None if it was never prepared."""
    context = MigrationContext.configure(
        connection, opts={"version_table_schema": "recon", "version_table": "schema_version"}
    )
    return context.get_current_revision()


def upgrade(connection: Connection, *, with_billing_tables: bool = False) -> bool:
    """Create or update schema `recon`; running it again changes nothing.

    Args:
        connection: Not in a transaction.
        with_billing_tables: First create the application's tables and recorder, if they are not there.

    Returns:
        Whether anything was created or changed.

    Raises:
        ReconError: Schema `recon` is of a version that this code does not know, or only some billing tables are there.
        DBAPIError: A privilege is missing, or a lock was not free in `LOCK_ATTEMPTS` attempts.
    """
    attempts = Retrying(
        retry=retry_if_exception(is_lock_conflict),
        stop=stop_after_attempt(LOCK_ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        reraise=True,
    )
    return attempts(_upgrade_once, connection, with_billing_tables=with_billing_tables)


def upgrade_sql() -> str:
    """The SQL that `upgrade` would run in an empty schema `recon`, for a person to run instead."""
    printed = StringIO()
    config = _config()
    config.output_buffer = printed
    command.upgrade(config, "head", sql=True)
    return printed.getvalue()


def is_known(version: str) -> bool:
    """Whether this code has that version among its migrations."""
    return version in {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def _upgrade_once(connection: Connection, *, with_billing_tables: bool) -> bool:
    with begin(connection):
        connection.execute(LOCK_MIGRATIONS)
        created = with_billing_tables and _create_billing_tables(connection)
        if not describe_server(connection).has_schema:
            connection.execute(_CREATE_SCHEMA)
        before = installed_version(connection)
        if before is not None and not is_known(before):
            raise ReconError(
                f"Schema recon is at version {before}, which this code ({SCHEMA_VERSION}) does not know: "
                "a newer release prepared it.",
                changed="Nothing was changed.",
                fix="Run the release that prepared it, or a newer one.",
            )
        if before != SCHEMA_VERSION:
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        return created or before != SCHEMA_VERSION


def _create_billing_tables(connection: Connection) -> bool:
    """Create the application's tables and recorder where there are none; those of an application are left alone."""
    there = [name for name in (EVENTS, COUNTERS, SUBSCRIPTIONS) if describe_table(connection, name) is not None]
    if EVENTS in there and COUNTERS in there:
        return False
    if there:
        raise ReconError(
            f"Of the billing tables only {', '.join(there)} is there.",
            changed="Nothing was changed.",
            fix="Let the application's own migrations create the others, "
            "or take the statements from recon init --print --with-billing-tables.",
        )
    connection.execute(statement("billing_tables"))
    return True


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "recon_pipeline:store/migrations")
    config.set_main_option("path_separator", "os")
    return config
