"""What `recon init` does with its options: prepare the database of the settings, or print the SQL for a person."""

from dataclasses import asdict, dataclass
from typing import Any

import click

from recon_pipeline.core.errors import ReconError
from recon_pipeline.faces.billing import billing_database, existing_url
from recon_pipeline.faces.console import err, out
from recon_pipeline.faces.init import prepare, printed
from recon_pipeline.settings import read_settings
from recon_pipeline.store.log.billing_tables import require_trustworthy
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.sums.modes import Mode, choose


@dataclass(frozen=True)
class InitOptions:
    """The options of the command as given.

    Attributes:
        with_billing_tables: Also create the application's tables and recorder.
        with_ingest_xid: Add the column `ingest_xid` to the log. None: unless an earlier call left the log as it is.
        subscribers_have_ingest_xid: Also where the log is published by logical replication.
        print_only: Print the SQL, and connect to no database.
    """

    with_billing_tables: bool
    with_ingest_xid: bool | None
    subscribers_have_ingest_xid: bool
    print_only: bool


@dataclass(frozen=True)
class Script:
    """The SQL that a person runs instead."""

    sql: str


@dataclass(frozen=True)
class Initialised:
    """What was done.

    Attributes:
        database: Without its password.
        report: A sentence for each part.
        mode: Of runs from now on; None: they will be refused.
        mode_reason: Why it is not incremental.
    """

    database: str
    report: str
    mode: Mode | None
    mode_reason: str | None


def initialise(options: InitOptions) -> Script | Initialised:
    """Prepare the database of DATABASE_URL, or the embedded one if there is one; or only return the SQL.

    Raises:
        ConfigurationError: A variable cannot be used, or DATABASE_URL is not set and there is no embedded database.
        ReconError: As `prepare` does.
    """
    if options.print_only:
        with_column = options.with_ingest_xid is not False
        sql = printed(
            with_billing_tables=options.with_billing_tables,
            with_ingest_xid=with_column,
            subscribers_have_it=options.subscribers_have_ingest_xid,
        )
        return Script(sql)
    settings = read_settings()
    existing_url(settings)
    database = billing_database(settings)
    report = prepare(
        database,
        with_billing_tables=options.with_billing_tables,
        with_ingest_xid=options.with_ingest_xid,
        subscribers_have_it=options.subscribers_have_ingest_xid,
        on_step=lambda step: err.print(f"{step};", style="dim", markup=False, soft_wrap=True),
    )
    return Initialised(database.name, report, *_mode(database))


def _mode(database: BillingDatabase) -> tuple[Mode | None, str | None]:
    with database.transaction() as connection:
        try:
            choice = choose(connection, require_trustworthy(connection))
        except ReconError as error:
            return None, error.what
    return choice.mode, choice.reason


def as_json(done: Script | Initialised) -> dict[str, Any]:
    """The one object of `--json`."""
    return {"success": True, **asdict(done)}


def show(done: Script | Initialised) -> None:
    """The same for a person."""
    if isinstance(done, Script):
        click.echo(done.sql)
    else:
        out.print(done.report, markup=False, soft_wrap=True)  # statements in it are to be copied as they stand
