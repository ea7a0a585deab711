"""The clock of the database, by which pauses and holds end and late events are dated."""

from datetime import datetime

from sqlalchemy import Connection

from recon_pipeline.store.postgres.statements import labelled

# The time by the clock of the database.
_READ_CLOCK = labelled("read_clock", "select clock_timestamp()")


def now(connection: Connection) -> datetime:
    """The time by the database's clock; in a transaction."""
    return connection.execute(_READ_CLOCK).scalar_one()
