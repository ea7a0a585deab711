"""The commands `recon pause` and `recon resume`: repairs off and on again, while detection and checks go on."""

from dataclasses import asdict

import click

from recon_pipeline.core.instants import parse_until
from recon_pipeline.faces.commands.common import billing_connection, leave_trace, require_text
from recon_pipeline.faces.console import EXIT_CLEAN, json_option, out, show_json, telling_errors


@click.command(epilog='Example: recon pause --reason "INC-1234: the log is being restored" --until 2h')
@click.option("--reason", required=True, metavar="TEXT", help="Why; recorded.")
@click.option("--until", metavar="WHEN", help="Ends by itself: 30m, 2h, 3d, 2026-11-25T06:00Z. Else by recon resume.")
@json_option
@telling_errors
def pause(*, reason: str, until: str | None, as_json: bool) -> int:
    """Stop repairs: no counter is changed from now on; detection, checks and alerts go on.

    The schedule, the HTTP endpoint and backfills obey. Returns when no repair is at work any more.
    """
    from recon_pipeline.faces.orchestrator import user_name
    from recon_pipeline.store.counters.pause import now, pause_repairs, read_pause
    from recon_pipeline.store.postgres.database import begin

    require_text("--reason", [reason], example='"INC-1234: the log is being restored"')
    with billing_connection() as connection:
        with begin(connection):
            now = now(connection)
        ends = parse_until(until, now=now) if until is not None else None
        before = pause_repairs(connection, reason=reason, paused_by=user_name(), until=ends)
        with begin(connection):
            paused = read_pause(connection)
    leave_trace(f"Repairs were paused {paused}", reason=reason)
    if as_json:
        show_json(
            {
                "success": True,
                "paused": asdict(paused) if paused else None,
                "replaced": asdict(before) if before else None,
            }
        )
    else:
        out.print(f"Repairs are paused {paused}", markup=False, soft_wrap=True)
        out.print("No repair is at work. Runs go on to compare and to check. To let repairs go on: recon resume")
    return EXIT_CLEAN


@click.command(epilog='Example: recon resume --reason "INC-1234: the log is whole again"')
@click.option("--reason", metavar="TEXT", help="Why; recorded.")
@json_option
@telling_errors
def resume(*, reason: str | None, as_json: bool) -> int:
    """Let repairs go on after a pause; the next run repairs what it finds."""
    from recon_pipeline.faces.orchestrator import user_name
    from recon_pipeline.store.counters.pause import resume_repairs

    require_text("--reason", [reason], example='"INC-1234: the log is whole again"')
    with billing_connection() as connection:
        ended = resume_repairs(connection, reason=reason, resumed_by=user_name())
    if ended is not None:
        leave_trace(f"Repairs were resumed by {user_name()}", reason=reason or "")
    if as_json:
        show_json({"success": True, "paused": None, "ended": asdict(ended) if ended else None})
    elif ended is None:
        out.print("Repairs were not paused.")
    else:
        out.print(f"Repairs go on. They were paused {ended}", markup=False, soft_wrap=True)
        out.print("The next tick of the schedule repairs what it finds; to do so now: recon reconcile")
    return EXIT_CLEAN
