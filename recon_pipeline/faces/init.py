"""The command `recon init`: prepares a database, or prints what would be run for a person to run instead."""

from importlib import resources

from sqlalchemy.exc import DBAPIError

from recon_pipeline.core.errors import ReconError
from recon_pipeline.store import migrate
from recon_pipeline.store.billing_tables import describe_server
from recon_pipeline.store.database import BillingDatabase, begin
from recon_pipeline.store.failures import LOCK_NOT_HAD, sqlstate


def prepare(database: BillingDatabase, *, with_billing_tables: bool) -> str:
    """Create or update schema `recon`; running it again changes nothing.

    Returns:
        What was done, a sentence.

    Raises:
        ReconError: A privilege is missing, the database is a standby, or locks could not be had.
    """
    with database.connection() as connection:
        with begin(connection):
            server = describe_server(connection)
            if server.is_standby:
                raise ReconError(
                    f"{database.name} is a standby and takes no changes.",
                    changed="Nothing was changed.",
                    mend="Point DATABASE_URL at the primary.",
                )
            if not server.has_schema and not server.can_create_schema:
                raise ReconError(
                    f"Role {server.role} may not create a schema in {server.database}.",
                    changed="Nothing was changed.",
                    mend=f"Let its owner run: create schema recon authorization {server.role}; then run this again. "
                    "Or give a person the output of recon init --print.",
                )
            before = migrate.installed_version(connection) if server.has_schema else None
        try:
            changed = migrate.upgrade(connection, with_billing_tables=with_billing_tables)
        except DBAPIError as error:
            if sqlstate(error) not in LOCK_NOT_HAD:
                raise
            raise ReconError(
                f"A lock in {database.name} was held by somebody else in each of {migrate.LOCK_ATTEMPTS} attempts.",
                changed="Nothing was changed.",
                mend="Look in pg_stat_activity for a transaction that is open for long, and run this again.",
            ) from error
    after = migrate.latest_version()
    tables = " The billing tables are there." if with_billing_tables else ""
    if not changed:
        return f"Schema recon in {database.name} is at version {after} already.{tables}"
    return f"Schema recon in {database.name} is at version {after} now (was: {before or 'not there'}).{tables}"


def printed(*, with_billing_tables: bool) -> str:
    """The SQL for a person to run: role, billing tables if asked for, schema `recon`."""
    sql = resources.files("recon_pipeline") / "sql"
    parts = [
        (sql / "billing_tables.sql").read_text(encoding="utf-8") if with_billing_tables else "",
        (sql / "grants.sql").read_text(encoding="utf-8"),
        "-- The rest belongs to that role.\nset role recon_pipeline;",
        migrate.upgrade_sql(),
        "reset role;",
    ]
    return "\n".join(part for part in parts if part)
