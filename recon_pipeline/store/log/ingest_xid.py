"""The column `ingest_xid` of the incremental mode: what of it the log lacks, and who may add that.

`ingest_xid_installation` adds what is lacking.
"""

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection

from recon_pipeline.store.postgres.statements import labelled, statement

# Whether recon init leaves the log as it is.
# Invariant: only recon init sets it, as a comment that goes with schema recon into each dump.
_IS_LEFT_ALONE = labelled(
    "is_log_left_alone",
    """
    select coalesce(obj_description(to_regnamespace('recon')::oid, 'pg_namespace') like '%--without-ingest-xid%', false)
    """,
)
# Lets every later recon init leave the log as it is.
_LEAVE_ALONE = labelled(
    "leave_log_alone",
    "comment on schema recon is 'recon init --without-ingest-xid was run: the log is left as it is.'",
)
# Lets every later recon init prepare the log again.
_ALLOW_TO_ALTER = labelled("allow_to_alter_log", "comment on schema recon is null")

AS_IT_STANDS = {"no_parameters": True}  # a name may hold a per cent sign


class Need(StrEnum):
    """What a lack means.

    Attributes:
        REQUIRED: Without it sums are taken from the whole log.
        ADVISED: The same, but the operator decides whether to add it.
        OPTIONAL: Runs are incremental without it; it saves work later.
    """

    REQUIRED = "required"
    ADVISED = "advised"
    OPTIONAL = "optional"


@dataclass(frozen=True)
class Lack:
    """Something that the log does not have.

    Attributes:
        kind: What that means.
        lacks: A sentence.
        statement: The SQL that fixes it, or None where none does.
        is_concurrent: It must run outside a transaction, and waits for open ones without blocking other sessions.
    """

    kind: Need
    lacks: str
    statement: str | None
    is_concurrent: bool

    @property
    def rules_out_increments(self) -> bool:
        """Whether runs have to be in full mode."""
        return self.kind is not Need.OPTIONAL


@dataclass(frozen=True)
class LogOwner:
    """Who may alter the log.

    Attributes:
        owner: Its role.
        missing_grant: The statement that lets it use schema `recon`, which the triggers need, or None if it can.
        is_ours_to_grant: We own schema `recon`.
    """

    owner: str
    missing_grant: str | None
    is_ours_to_grant: bool


def lacking(connection: Connection, *, refuses_repetitions: bool) -> tuple[Lack, ...]:
    """What the log lacks, in the order in which it is fixed; reads the catalog only."""
    asked = {"refuses_repetitions": refuses_repetitions}
    rows = connection.execute(statement("missing_for_increments"), asked).mappings()
    return tuple(Lack(Need(row["kind"]), row["lacks"], row["statement"], row["is_concurrent"]) for row in rows)


def is_left_alone(connection: Connection) -> bool:
    """Whether a person asked to leave the log as it is, now or in an earlier `recon init`."""
    return connection.execute(_IS_LEFT_ALONE).scalar_one()


def remember(connection: Connection, *, left_alone: bool) -> None:
    """Store the answer for later calls of `recon init` without an option.

    Raises:
        DBAPIError: The answer changes, and our role does not own schema `recon`.
    """
    if left_alone != is_left_alone(connection):
        connection.execute(_LEAVE_ALONE if left_alone else _ALLOW_TO_ALTER)


def has_foreign_ids(connection: Connection) -> bool:
    """Whether events carry transaction ids that this server has not reached, as after a restore on another server."""
    return connection.execute(statement("foreign_transaction_ids")).scalar_one()


def owner_of_log(connection: Connection) -> LogOwner:
    """Who may alter the log, and whether that role can make the triggers."""
    return LogOwner(**connection.execute(statement("owner_of_log")).mappings().one())


def let_owner_use_schema(connection: Connection, log: LogOwner) -> None:
    """Run the missing grant."""
    if log.missing_grant is not None:
        connection.exec_driver_sql(log.missing_grant, execution_options=AS_IT_STANDS)
