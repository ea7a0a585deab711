"""One run of the cron endpoint at a time, over all processes that serve it."""

from collections.abc import Generator
from contextlib import contextmanager

from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.postgres.statements import labelled

# Takes the right to run for the cron endpoint, until this transaction ends, if it is free.
# Invariant: one at a time over all processes; a process that dies leaves nothing behind. A lock of a transaction works
# through a pooler too; the transaction writes nothing, so it holds no horizon back.
_TRY_SERVE_LOCK = labelled(
    "try_serve_lock",
    """
    select pg_try_advisory_xact_lock(hashtextextended('recon serve', 0)) as is_ours,
        set_config('idle_in_transaction_session_timeout', '0', true)
    """,
)


@contextmanager
def serve_lock(database: BillingDatabase) -> Generator[bool]:
    """Whether no other run is in progress; if so, none begins until the block ends.

    Raises:
        ReconError: The database cannot be reached.
    """
    with database.transaction() as connection:
        yield connection.execute(_TRY_SERVE_LOCK).one().is_ours
