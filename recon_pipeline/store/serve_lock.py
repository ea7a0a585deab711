"""One run of the cron endpoint at a time, over all processes that serve it."""

from collections.abc import Generator
from contextlib import contextmanager

from recon_pipeline.store.database import BillingDatabase
from recon_pipeline.store.statements import statement


@contextmanager
def serve_lock(database: BillingDatabase) -> Generator[bool]:
    """Whether nobody else runs; if so, nobody else does until the block ends.

    Raises:
        ReconError: The database cannot be reached.
    """
    with database.transaction() as connection:
        yield connection.execute(statement("try_serve_lock")).one().is_ours
