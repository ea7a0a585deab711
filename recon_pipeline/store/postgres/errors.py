"""Turns the driver's errors into errors that say what failed, what was not changed and what to do.

Knows SQLSTATEs; never shows a connection string. Source of the codes: PostgreSQL manual, appendix A.
"""

from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, ProgrammingError

from recon_pipeline.core.errors import (
    ConfigurationError,
    DatabaseUnreachableError,
    PutOffError,
    ReconError,
    StatementFailedError,
    driver_reason,
)
from recon_pipeline.store.postgres.refusals import explain_refusal
from recon_pipeline.store.postgres.registry import inline_statements
from recon_pipeline.store.postgres.statements import files, name_of

LOCK_TIMED_OUT = "55P03"
QUERY_CANCELED = "57014"
SESSION_WAS_IDLE = "25P03"
"""idle_in_transaction_session_timeout: the server ended a session whose process did not continue in time."""

LOCK_CONFLICTS = frozenset({LOCK_TIMED_OUT, "40P01", "40001"})
"""lock_not_available, deadlock_detected, serialization_failure: another session has locked or just changed the row."""

_CONNECTION_STATES = ("08", "57P0", "53300")
AT_THE_PRIMARY = "Point DATABASE_URL at the primary. It may name several hosts: postgresql://host1:5432,host2:5432/app."
"""What to do where a server takes no writes; with several hosts, the one that takes them is used."""

_WORKED_SO_FAR = "What was committed before stays; the statement that failed changed nothing."
_GOES_ON = f"{_WORKED_SO_FAR} The same command, run again, finishes the work."


def sqlstate(error: DBAPIError) -> str:
    """The five characters of the SQLSTATE, or '' where the connection failed before one was sent."""
    return getattr(error.orig, "sqlstate", None) or ""


def is_connection_lost(error: DBAPIError) -> bool:
    """Whether the server went away or never answered, as opposed to refusing a statement."""
    state = sqlstate(error)
    if not state:  # the driver's own error: of the connection, or of a value that it cannot read
        return isinstance(error, (OperationalError, InterfaceError))
    return error.connection_invalidated or state == SESSION_WAS_IDLE or state.startswith(_CONNECTION_STATES)


def was_ended_while_idle(error: BaseException, *, seconds: float, limit_ms: int) -> bool:
    """Whether the server ended a transaction's session since this process did not continue it, and wrote nothing.

    Args:
        error: That ended the transaction.
        seconds: How long the transaction was open.
        limit_ms: How long the server let it wait for this process.
    """
    if not isinstance(error, DBAPIError) or not is_connection_lost(error):
        return False
    # The driver reports that the session was ended, or only that the connection is gone.
    return sqlstate(error) == SESSION_WAS_IDLE or (not sqlstate(error) and seconds >= limit_ms / 1_000)


def is_lock_conflict(error: BaseException) -> bool:
    """Whether another session's lock was the cause, so that trying again may help."""
    return isinstance(error, DBAPIError) and sqlstate(error) in LOCK_CONFLICTS


def first_line(error: DBAPIError) -> str:
    """The first line of Postgres's message, without its context; if there are several hosts, that of each."""
    return driver_reason(str(error.orig)) or type(error.orig).__name__


def explain(error: DBAPIError, *, database: str) -> ReconError:
    """The error that a person reads.

    Args:
        error: What SQLAlchemy raised.
        database: The database as a person knows it, without its password.
    """
    state, said, name = sqlstate(error), first_line(error), name_of(error.statement or "")
    at = f" (statement {name})" if name else ""
    refused = explain_refusal(said, state=state, database=database)
    if refused is not None:
        return refused
    if not state and isinstance(error, ProgrammingError):
        return DatabaseUnreachableError(
            f"The URL of the billing database, {database}, cannot be used: {said}",
            fix="Fix DATABASE_URL, for example by taking the part that is named away.",
        )
    if state == SESSION_WAS_IDLE:
        return DatabaseUnreachableError(
            f"{database} ended our session, because this process paused in the middle of a transaction: it was "
            f"stopped, starved of processor time or cut off from the network ({said}).",
            changed=_GOES_ON,
            fix="If it happens again: look at the load and the memory of the machine on which this process ran.",
        )
    if is_connection_lost(error):
        return DatabaseUnreachableError(
            f"The billing database {database} could not be reached, or the connection was lost: {said}",
            changed=_GOES_ON,
            fix="Check that the server runs and that DATABASE_URL names it.",
        )
    if state == "25006":
        return StatementFailedError(
            f"{database} takes no writes: {said}{at}. It is a standby, or transactions of this role are read only.",
            changed=_WORKED_SO_FAR,
            fix=f"{AT_THE_PRIMARY} Or, as the owner: alter role … reset default_transaction_read_only;",
        )
    if state == "42501":
        return StatementFailedError(
            f"A privilege is missing in {database}: {said}{at}",
            changed=_WORKED_SO_FAR,
            fix="Run `recon doctor`, which names each missing privilege with its GRANT.",
        )
    if state in ("42P01", "3F000", "42703"):
        return StatementFailedError(
            f"A table or column is missing in {database}: {said}{at}",
            changed=_WORKED_SO_FAR,
            fix="Run `recon init` for tables of schema recon, and `recon doctor` for the application's own.",
        )
    if state == LOCK_TIMED_OUT:
        return PutOffError(
            f"The work was put off, since another session has a lock in {database}: {said}{at}",
            changed=f"{_GOES_ON} The schedule does so by itself.",
            fix="If it stays: look in pg_stat_activity for a transaction that is open for long.",
        )
    if state in LOCK_CONFLICTS or state == QUERY_CANCELED:
        return StatementFailedError(
            f"A lock or a time limit was not met in {database}: {said}{at}",
            changed=_GOES_ON,
            fix="If it stays: look in pg_stat_activity for a transaction that is open for long.",
        )
    if state == "22P05":
        return ConfigurationError(
            f"The encoding of {database} lacks a character of what it was given: {said}{at}",
            changed=_WORKED_SO_FAR,
            fix="Take the character out of what you gave: no row of this database can have it. A database of the "
            "encoding UTF8 has all of them.",
        )
    if state == "53100":
        return StatementFailedError(
            f"The disk of {database} is full: {said}{at}",
            changed=_GOES_ON,
            fix="Make room on the server.",
        )
    return StatementFailedError(
        f"{database} refused {f'the statement {name}' if name else 'a statement'}: {said} (SQLSTATE {state})",
        changed=_WORKED_SO_FAR,
        fix=f"Run `recon doctor`; if it passes, report this with what `recon sql {name}` prints."
        if name in files() or name in inline_statements()
        else "Run `recon doctor`; if it passes, report this.",
    )


@contextmanager
def reporting_driver_errors(database: str) -> Generator[None]:
    """Raise driver errors from the block as errors that a person reads."""
    try:
        yield
    except DBAPIError as error:
        raise explain(error, database=database) from error
