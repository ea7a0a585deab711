"""`recon init`: prepares a database."""

import click

from recon_pipeline.faces.cli.options import require_url
from recon_pipeline.faces.console import EXIT_CLEAN, err, json_option, out, reporting_errors, show_json
from recon_pipeline.settings import read_settings


@click.command("init", epilog="Example: recon init --print > recon.sql")
@click.option("--with-billing-tables", is_flag=True, help="Also create the application's tables and recorder.")
@click.option("--without-ingest-xid", is_flag=True, help="Leave the log as it is; every run then reads all of it.")
@click.option(
    "--subscribers-have-ingest-xid",
    is_flag=True,
    help="The log is published by logical replication, and each subscriber's table has the column ingest_xid.",
)
@click.option("--print", "print_only", is_flag=True, help="Show the SQL instead of running it.")
@json_option
@reporting_errors
def command(
    *,
    with_billing_tables: bool,
    without_ingest_xid: bool,
    subscribers_have_ingest_xid: bool,
    print_only: bool,
    as_json: bool,
) -> int:
    """Prepare the database that DATABASE_URL names: schema recon, and the log's column ingest_xid.

    Without DATABASE_URL, the embedded database of recon demo and recon dev, if there is one.
    """
    from recon_pipeline.faces import init as face
    from recon_pipeline.faces.billing import billing_database, has_embedded_database

    with_ingest_xid = not without_ingest_xid
    if print_only:
        sql = face.printed(with_billing_tables=with_billing_tables, with_ingest_xid=with_ingest_xid)
        if as_json:
            show_json({"success": True, "sql": sql})
        else:
            click.echo(sql)
        return EXIT_CLEAN
    settings = read_settings()
    if not has_embedded_database(settings):
        require_url(settings)
    database = billing_database(settings)
    report = face.prepare(
        database,
        with_billing_tables=with_billing_tables,
        with_ingest_xid=with_ingest_xid,
        subscribers_have_it=subscribers_have_ingest_xid,
        on_step=lambda step: err.print(f"{step};", style="dim", markup=False, soft_wrap=True),
    )
    if as_json:
        show_json({"success": True, "database": database.name, "report": report})
    else:
        out.print(report, markup=False, soft_wrap=True)  # statements in it are to be copied as they stand
    return EXIT_CLEAN
