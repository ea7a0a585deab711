"""The commands `recon hold` and `recon release`: some customers' counters are left alone for a while."""

from dataclasses import asdict

import click

from recon_pipeline.core.instants import parse_until
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.commands.common import (
    billing_connection,
    customer_option,
    leave_trace,
    period_option,
    require_text,
)
from recon_pipeline.faces.console import EXIT_CLEAN, err, json_option, out, show_json, telling_errors


@click.command(epilog='Example: recon hold --customer cus_123 --reason "TICKET-9: disputed" --until 3d')
@customer_option
@period_option
@click.option("--reason", required=True, metavar="TEXT", help="Why; recorded.")
@click.option("--until", required=True, metavar="WHEN", help="When it ends: 30m, 2h, 3d, 2026-11-25T06:00Z.")
@json_option
@telling_errors
def hold(*, customers: tuple[str, ...], periods: tuple[str, ...], reason: str, until: str, as_json: bool) -> int:
    """Leave the counters of some customers alone, whatever the log says; they are reported as held.

    Without --period: of every billing month. Returns when no repair is at work on them any more.
    """
    from recon_pipeline.faces.orchestrator import user_name
    from recon_pipeline.store.counters import holds
    from recon_pipeline.store.counters.pause import now
    from recon_pipeline.store.postgres.database import begin

    require_text("--customer", customers, example="cus_123")
    require_text("--reason", [reason], example='"TICKET-9: disputed"')
    months = [BillingMonth.parse(period) for period in periods]
    with billing_connection() as connection:
        with begin(connection):
            ends = parse_until(until, now=now(connection))
        holds.hold(connection, customers, months, reason=reason, held_by=user_name(), until=ends)
        with begin(connection):
            in_force = [one for one in holds.open_holds(connection) if one.gateway_customer_id in customers]
            counters = holds.count_counters(connection, customers, months)
    leave_trace(f"Held by {user_name()} until {ends:%Y-%m-%d %H:%M} UTC: {', '.join(customers)}", reason=reason)
    if as_json:
        show_json({"success": True, "holds": [asdict(one) for one in in_force], "counters": counters})
        return EXIT_CLEAN
    named = f" of {', '.join(month.key for month in months)}" if months else ""
    for customer, count in counters.items():
        out.print(
            f"{customer}: {count:,} counters{named} are left alone until {ends:%Y-%m-%d %H:%M} UTC.",
            markup=False,
            soft_wrap=True,
        )
        if not count:
            err.print(f"{customer} has no counter{named}: is the name right?", style="yellow", markup=False)
    ending = "recon release --customer " + " --customer ".join(counters)
    out.print(f"They are reported as held. To end it before: {ending}", markup=False, soft_wrap=True)
    return EXIT_CLEAN


@click.command(epilog="Example: recon release --customer cus_123")
@customer_option
@period_option
@click.option("--reason", metavar="TEXT", help="Why; recorded.")
@json_option
@telling_errors
def release(*, customers: tuple[str, ...], periods: tuple[str, ...], reason: str | None, as_json: bool) -> int:
    """End holds before their time; the next run repairs what drifted meanwhile.

    Without --period every hold on the customer ends; with it the hold on that month alone.
    """
    from recon_pipeline.faces.orchestrator import user_name
    from recon_pipeline.store.counters import holds

    require_text("--customer", customers, example="cus_123")
    require_text("--reason", [reason], example='"TICKET-9: settled"')
    months = [BillingMonth.parse(period) for period in periods]
    with billing_connection() as connection:
        ended = holds.release(connection, customers, months, reason=reason, released_by=user_name())
    if ended:
        leave_trace(f"Released by {user_name()}: {', '.join(customers)}", reason=reason or "")
    if as_json:
        show_json({"success": True, "released": [asdict(one) for one in ended]})
        return EXIT_CLEAN
    for one in ended:
        month = one.partition or "every month"
        out.print(f"{one.gateway_customer_id}, {month}: repaired again from the next run on.", markup=False)
    if not ended:
        out.print("There was no such hold.")
    return EXIT_CLEAN
