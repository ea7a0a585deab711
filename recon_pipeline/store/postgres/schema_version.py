"""The version of schema `recon` that this code works on, and the refusal to work on another.

Invariant: releases do not know the content of each other's schema. So versions are compared on each connection before
anything else, and at the snapshot of each decision. The version is a constant, since loading Alembic takes longer than
most commands; a test compares it with the last migration.
"""

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from recon_pipeline.core.errors import SchemaVersionError, UntrustworthyLogError
from recon_pipeline.store.postgres.errors import AT_THE_PRIMARY, sqlstate
from recon_pipeline.store.postgres.statements import labelled

SCHEMA_VERSION = "0024"
"""What this code works on: the last migration."""

# Whether the server is in recovery.
_IS_STANDBY = labelled("is_standby", "select pg_is_in_recovery()")
# The version of schema recon.
_READ_SCHEMA_VERSION = labelled("read_schema_version", "select max(version_num) from recon.schema_version")

_NOT_THERE = ("42P01", "3F000")  # undefined_table, invalid_schema_name
_IS_OURS = "schema recon is of our version"


def is_known_to_be_ours(connection: Connection) -> bool:
    """Whether the version was compared on this connection of the driver, however often it was given out since."""
    return connection.info.get(_IS_OURS, False)


def installed_version(connection: Connection) -> str | None:
    """The version of schema `recon`, or None if it was never prepared; the transaction has failed in that case."""
    try:
        return connection.execute(_READ_SCHEMA_VERSION).scalar_one()
    except DBAPIError as error:
        if sqlstate(error) not in _NOT_THERE:
            raise
        return None


def is_standby(connection: Connection) -> bool:
    """Whether the server lags behind a primary and takes no writes."""
    return connection.execute(_IS_STANDBY).scalar_one()


def require_primary(*, is_standby: bool, database: str) -> None:
    """Refuse a standby, also for reading: it shows an earlier state.

    Raises:
        UntrustworthyLogError: With its fix.
    """
    if is_standby:
        raise UntrustworthyLogError(
            f"The database {database} is a standby: it lags behind its primary and takes no writes.",
            fix=AT_THE_PRIMARY,
        )


def require_version(connection: Connection, installed: str | None, *, database: str) -> None:
    """Refuse any version but the one that this code works on.

    Args:
        connection: On which it was read.
        installed: What was read, or None if the database was never prepared.
        database: As a person knows it, without its password.

    Raises:
        SchemaVersionError: With its fix.
    """
    connection.info[_IS_OURS] = installed == SCHEMA_VERSION
    if installed == SCHEMA_VERSION:
        return
    if installed is None:
        raise SchemaVersionError(
            f"{database} was never prepared: it has no schema recon, or an empty one.", fix="Run recon init."
        )
    is_newer = installed > SCHEMA_VERSION
    raise SchemaVersionError(
        f"Schema recon in {database} is at version {installed}, and this release works on version {SCHEMA_VERSION}.",
        fix="A newer release prepared it: upgrade this package to that release, wherever it runs (recon --version)."
        if is_newer
        else "Run recon init with this release, then this again.",
        is_newer=is_newer,
    )
