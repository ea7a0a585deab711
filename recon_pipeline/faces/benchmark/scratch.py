"""The database that the benchmark fills and throws away: on a server of its own, or on the one that is given."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import make_url, text

from recon_pipeline import embedded_postgres
from recon_pipeline.core.database_url import for_psycopg
from recon_pipeline.core.scope import parse_scope
from recon_pipeline.faces.benchmark.product import FIRST_MONTH
from recon_pipeline.faces.benchmark.statements import statement
from recon_pipeline.settings import DEFAULT_SCOPE
from recon_pipeline.store.log.ingest_xid_installation import install
from recon_pipeline.store.postgres.database import BillingDatabase, begin
from recon_pipeline.store.records import accepted_usages, migrate

_FILLING_TIMEOUT_MS = 2 * 60 * 60 * 1_000


@contextmanager
def scratch_database(url: str | None) -> Iterator[str]:
    """An empty database, gone at the end.

    Args:
        url: Of any database of a server on which our role may create databases; None for the embedded Postgres, with a
            data folder of its own beside the product's.

    Raises:
        ReconError: No server, or it refused to create the database.
    """
    if url is None:
        with _embedded_server() as own:
            yield own
        return
    name = f"recon_benchmark_{secrets.token_hex(4)}"
    server = BillingDatabase(url)
    execute_outside_transaction(server, f"create database {name}")
    try:
        scratch = make_url(for_psycopg(url)).set(database=name)
        yield scratch.render_as_string(hide_password=False)
    finally:
        execute_outside_transaction(server, f"drop database {name} with (force)")


def fill(database: BillingDatabase, *, events: int, counters: int, seed: int, with_ingest_xid: bool = True) -> None:
    """Install schema and tables, and make up six months of usage whose counters are all right."""
    with database.connection(any_schema_version=True) as connection:
        migrate.upgrade(connection, with_billing_tables=True)
        with begin(connection, statement_timeout_ms=_FILLING_TIMEOUT_MS):
            connection.execute(statement("bare_log"))
            connection.execute(statement("uniform"))
            parameters = {"events": events, "counters": counters, "seed": seed, "first_start": FIRST_MONTH.start}
            connection.execute(statement("fill_events"), parameters)
            connection.execute(statement("index_log"))
            connection.execute(statement("fill_counters"))
            connection.execute(statement("fill_subscriptions"))
            accepted_usages.accept(
                connection,
                parse_scope(DEFAULT_SCOPE),
                first=FIRST_MONTH,
                accepted_by=None,
                reason="made up",
                run_id=None,
            )
        if with_ingest_xid:
            install(connection, refuses_repetitions=True)
    execute_outside_transaction(database, "vacuum analyze")


def execute_outside_transaction(database: BillingDatabase, sql: str) -> None:
    """Run what Postgres refuses inside a transaction."""
    with database.connection(any_schema_version=True) as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text(sql))


@contextmanager
def _embedded_server() -> Iterator[str]:
    folder = embedded_postgres.default_data_folder().with_name(f"benchmark-{secrets.token_hex(2)}")
    server = embedded_postgres.ensure_running(folder=folder, keep_running=False)
    try:
        yield server.ensure_database("benchmark")
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
        for ending in ("lock", "users"):
            folder.with_name(f"{folder.name}.{ending}").unlink(missing_ok=True)
