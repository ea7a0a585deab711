"""How a run takes event sums: from the log itself, or in increments."""

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection

from recon_pipeline.store.log import ingest_xid
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.postgres.statements import labelled

# The version of the catalog in which the log was last found to lack nothing for the incremental mode.
_READ_PREPARED_CATALOG = labelled("read_prepared_catalog", "select prepared_catalog from recon.event_log")


class Sums(StrEnum):
    """Where event sums come from.

    Attributes:
        LOG: The log itself, all of it.
        INCREMENTS: What was added up so far and the events since say which keys may differ; of these the log is read.
    """

    LOG = "full"
    INCREMENTS = "incremental"


@dataclass(frozen=True)
class Mode:
    """How a run takes event sums.

    Attributes:
        sums: From the log or in increments.
        reason: Why it is the log, or None.
    """

    sums: Sums
    reason: str | None = None


def mode(connection: Connection, tables: BillingTables, *, is_asked_for_full: bool = False) -> Mode:
    """How a run that begins now takes event sums; changes nothing."""
    if is_asked_for_full:
        return Mode(Sums.LOG, "it was asked for")
    if prepared_catalog(connection) == tables.catalog_version:
        return Mode(Sums.INCREMENTS)
    for lack in ingest_xid.lacking(connection, request_id_is_unique=tables.request_id_is_unique):
        if lack.rules_out_increments:
            return Mode(Sums.LOG, lack.lacks)
    return Mode(Sums.INCREMENTS)


def prepared_catalog(connection: Connection) -> str | None:
    """The version of the catalog in which the log was last found to lack nothing for the incremental mode."""
    return connection.execute(_READ_PREPARED_CATALOG).scalar_one_or_none()
