"""`recon sql`: the statements that runs send."""

import click

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.cli.options import require_text
from recon_pipeline.faces.console import EXIT_CLEAN, json_option, reporting_errors, show_json


@click.command("sql", epilog="Example: recon sql find_mismatches --period 2026-05 | psql $DATABASE_URL")
@click.argument("name", required=False)
@click.option(
    "--strategy",
    "strategies",
    multiple=True,
    metavar="PART",
    help="A part that fills a hole, where several can; repeatable. If not given, the first declared one.",
)
@click.option("--customer", "customers", multiple=True, metavar="ID", help="Use values of this customer; repeatable.")
@click.option("--period", metavar="YYYY-MM", help="Use this billing month; if not given, the current one.")
@click.option("--explain", "explains", is_flag=True, help="Show its query plan on the billing database.")
@json_option
@reporting_errors
def command(
    *,
    name: str | None,
    strategies: tuple[str, ...],
    customers: tuple[str, ...],
    period: str | None,
    explains: bool,
    as_json: bool,
) -> int:
    """List the statements that runs send; with NAME print one for psql, or show its plan.

    It does not run the statement: with --explain Postgres plans it in a transaction that is rolled back, with the parts
    that the tables require.
    """
    from recon_pipeline.faces import sql as face
    from recon_pipeline.faces import sql_printed

    require_text("--customer", customers, example="cus_123")
    month = BillingMonth.parse(period) if period is not None else None
    found = face.list_or_print(name, strategies, customers, month, explains=explains)
    if as_json:
        show_json(sql_printed.as_json(found))
    else:
        sql_printed.show(found)
    return EXIT_CLEAN
