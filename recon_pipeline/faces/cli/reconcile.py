"""`recon reconcile`: a run of the pipeline, now."""

import click

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.faces.cli.options import require_text
from recon_pipeline.faces.console import json_option, reporting_errors, show_json
from recon_pipeline.settings import read_settings


@click.command("reconcile", epilog="Example: recon reconcile --period 2026-05 --period 2026-06 --dry-run")
@click.option("--period", "periods", multiple=True, metavar="YYYY-MM", help="A billing month; may be repeated.")
@click.option("--all", "every_period", is_flag=True, help="Every month from RECON_START_PERIOD on.")
@click.option("--customer", "customers", multiple=True, metavar="ID", help="Only this customer; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Compare and check the guards; repair nothing.")
@click.option("--full", is_flag=True, help="Sum the log itself, and compare the stored sums with it.")
@click.option("--while-paused", is_flag=True, help="Repair although repairs are paused.")
@click.option("--approve", "approve_reason", metavar="REASON", help="Approve what a run has shown, with this reason.")
@click.option("--approve-run", metavar="RUN", help="That run; if not given, the latest over the same months.")
@json_option
@reporting_errors
def command(
    *,
    periods: tuple[str, ...],
    every_period: bool,
    customers: tuple[str, ...],
    dry_run: bool,
    full: bool,
    while_paused: bool,
    approve_reason: str | None,
    approve_run: str | None,
    as_json: bool,
) -> int:
    """Compare counters with the log, repair what drifted, verify.

    Without --period and --all it covers the months of a tick of the schedule.
    """
    from recon_pipeline.faces import reconcile as face
    from recon_pipeline.faces import reconciled

    if approve_run is not None and approve_reason is None:
        raise ConfigurationError("--approve-run is given without --approve.", fix='Add --approve "your reason".')
    require_text("--customer", customers, example="cus_123")
    require_text("--approve-run", [approve_run], example="4f1c9a02")
    require_text("--approve", [approve_reason], example='"ledger import of 3 May"')
    options = face.ReconcileOptions(
        periods, every_period, customers, dry_run, full, while_paused, approve_reason, approve_run
    )
    ended = face.run_reconcile(read_settings(), options)
    summary = reconciled.summarize(ended, dry_run=dry_run)
    if as_json:
        show_json(reconciled.as_json(summary))
    else:
        reconciled.show(ended, dry_run=dry_run)
    return reconciled.exit_code(summary)
