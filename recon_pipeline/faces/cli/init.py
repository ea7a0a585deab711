"""`recon init`: prepares a database."""

import click

from recon_pipeline.faces.console import EXIT_CLEAN, json_option, reporting_errors, show_json


@click.command("init", epilog="Example: recon init --print > recon.sql")
@click.option("--with-billing-tables", is_flag=True, help="Also create the application's tables and recorder.")
@click.option(
    "--with-ingest-xid/--without-ingest-xid",
    default=None,
    help="Add the log's column, or leave the log as it is; every run then reads all of it. "
    "If neither is given: as the last time, at first with the column.",
)
@click.option(
    "--subscribers-have-ingest-xid",
    is_flag=True,
    help="The log is published by logical replication, and each subscriber's table has the column ingest_xid; or all "
    "tables are published, and what reads that takes new ones.",
)
@click.option("--print", "print_only", is_flag=True, help="Show the SQL instead of running it.")
@json_option
@reporting_errors
def command(
    *,
    with_billing_tables: bool,
    with_ingest_xid: bool | None,
    subscribers_have_ingest_xid: bool,
    print_only: bool,
    as_json: bool,
) -> int:
    """Prepare the database that DATABASE_URL names: schema recon, and the log's column ingest_xid.

    Without DATABASE_URL it prepares the embedded database of recon demo and recon dev, if there is one.
    """
    from recon_pipeline.faces import initialised as face

    options = face.InitOptions(with_billing_tables, with_ingest_xid, subscribers_have_ingest_xid, print_only)
    done = face.initialise(options)
    if as_json:
        show_json(face.as_json(done))
    else:
        face.show(done)
    return EXIT_CLEAN
