"""`recon undo`: undoes the repairs of a run."""

import click

from recon_pipeline.faces.cli.options import require_text
from recon_pipeline.faces.console import json_option, reporting_errors, show_json
from recon_pipeline.settings import read_settings


@click.command("undo", epilog='Example: recon undo 4f1c9a02 --customer cus_123 --reason "INC-1234: the log was short"')
@click.argument("run")
@click.option("--customer", "customers", multiple=True, metavar="ID", help="Only this customer; may be repeated.")
@click.option("--reason", required=True, metavar="TEXT", help="Why; recorded.")
@click.option("--dry-run", is_flag=True, help="Show what it would undo; change nothing.")
@json_option
@reporting_errors
def command(*, run: str, customers: tuple[str, ...], reason: str, dry_run: bool, as_json: bool) -> int:
    """Undo the repairs of RUN; usage that was counted since then stays.

    RUN is the id of a run, or the beginning of it as recon status shows it. It refuses unless repairs are paused or
    the customers are held: otherwise the next run would make the same repairs again.
    """
    from recon_pipeline.faces import undo as face

    require_text("--customer", customers, example="cus_123")
    require_text("--reason", [reason], example='"INC-1234: the log was short"')
    require_text("RUN", [run], example="4f1c9a02")
    undone = face.undo(read_settings(), face.UndoOptions(run, customers, reason, dry_run))
    if as_json:
        show_json(face.as_json(undone))
    else:
        face.show(undone)
    return face.exit_code(undone)
