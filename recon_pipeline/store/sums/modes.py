"""The mode of a run: it gets event sums from the whole log, or in increments."""

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection

from recon_pipeline.store.log import ingest_xid
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.postgres.statements import labelled

# The version of the catalog in which the log was last found to lack nothing for the incremental mode.
_READ_PREPARED_CATALOG = labelled("read_prepared_catalog", "select prepared_catalog from recon.event_log")


class Mode(StrEnum):
    """How a run gets event sums.

    Attributes:
        FULL: From the whole log.
        INCREMENTAL: Aggregates and newer events say which keys may differ; only for these is the log read.
    """

    FULL = "full"
    INCREMENTAL = "incremental"


@dataclass(frozen=True)
class ModeChoice:
    """The mode of a run, and why it is not incremental.

    Attributes:
        mode: Of the run.
        reason: Why it is full, or None.
    """

    mode: Mode
    reason: str | None = None


def choose(connection: Connection, tables: BillingTables, *, is_asked_for_full: bool = False) -> ModeChoice:
    """The mode of a run that begins now; changes nothing."""
    if is_asked_for_full:
        return ModeChoice(Mode.FULL, "it was asked for")
    if prepared_catalog(connection) == tables.prepared_catalog:
        return ModeChoice(Mode.INCREMENTAL)
    for lack in ingest_xid.lacking(connection, refuses_repetitions=tables.refuses_repetitions):
        if lack.rules_out_increments:
            return ModeChoice(Mode.FULL, lack.lacks)
    return ModeChoice(Mode.INCREMENTAL)


def prepared_catalog(connection: Connection) -> str | None:
    """The version of the catalog in which the log was last found to lack nothing for the incremental mode."""
    return connection.execute(_READ_PREPARED_CATALOG).scalar_one_or_none()
