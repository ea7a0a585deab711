"""`recon demo`: what the product does, without a server or a setting."""

import click

from recon_pipeline.faces.console import json_option, reporting_errors, show_json


@click.command("demo", epilog="Example: recon demo --events 50000 --customers 800")
@click.option(
    "--events", default=200_000, show_default=True, type=click.IntRange(2_000, 5_000_000), help="Number of events."
)
@click.option(
    "--customers", default=3_000, show_default=True, type=click.IntRange(100, 500_000), help="Number of customers."
)
@click.option("--seed", default=7, show_default=True, help="The same seed gives the same data.")
@json_option
@reporting_errors
def command(*, events: int, customers: int, seed: int, as_json: bool) -> int:
    """Simulate six months in which counters drift, on an embedded Postgres, and repair them."""
    from recon_pipeline.faces import demonstration as face

    played = face.demonstrate(events=events, customers=customers, seed=seed)
    if as_json:
        show_json(face.as_json(played))
    else:
        face.show(played)
    return face.exit_code(played)
