"""The command line: the list of its commands.

Each is the `command` of a module of its own here, which parses, calls one function of a module beside this folder, and
prints what that returned. That function is imported when the command runs, so that help, completion and wrong usage are
quick: most commands take a second to load, and Dagster takes four.
"""

import click

from recon_pipeline.faces.cli import (
    alerts,
    archive,
    backfill_events,
    backfills,
    benchmark,
    corrections,
    count_lake,
    demo,
    dev,
    doctor,
    explain,
    hold,
    init,
    parity,
    pause,
    reconcile,
    rejected,
    release,
    reopen,
    resume,
    retention,
    seal,
    serve,
    sql,
    status,
    undo,
    verify_seals,
)
from recon_pipeline.faces.console import Commands

_FIRST_STEPS = """\b
Example, a first look: recon demo, then recon dev
Example, your own: export DATABASE_URL=postgresql://…
  and DAGSTER_PG_URL=postgresql://…
  then recon init, recon doctor, recon reconcile --dry-run"""


@click.group("recon", cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=_FIRST_STEPS)
@click.version_option(package_name="recon-pipeline")
def main() -> None:
    """Keep usage-billing counters equal to the event log."""


for module in (
    alerts,
    archive,
    backfill_events,
    backfills,
    benchmark,
    corrections,
    count_lake,
    demo,
    dev,
    doctor,
    explain,
    hold,
    init,
    parity,
    pause,
    reconcile,
    rejected,
    release,
    reopen,
    resume,
    retention,
    seal,
    serve,
    sql,
    status,
    undo,
    verify_seals,
):
    main.add_command(module.command)
