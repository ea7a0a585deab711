"""`recon alerts`: whether messages reach the people who should get them."""

import click

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.faces.console import (
    EXIT_CLEAN,
    EXIT_NOT_CLEAN,
    WholeSentences,
    json_option,
    reporting_errors,
    show_json,
)
from recon_pipeline.settings import read_alerting


@click.group("alerts", cls=WholeSentences, epilog="Example: recon alerts test")
def command() -> None:
    """Test the delivery of alerts (the sensor alerts sends them)."""


@command.command(epilog="Example: recon alerts test --json")
@json_option
@reporting_errors
def test(*, as_json: bool) -> int:
    """Send a message to each target of RECON_ALERT_URLS, and show which accepted it."""
    targets = read_alerting().targets
    if not targets:
        raise ConfigurationError(
            "RECON_ALERT_URLS is not set: there is no target.",
            changed="Nothing was sent.",
            fix='Set it like RECON_ALERT_URLS="error=pagerduty://… slack://…", addresses of Apprise.',
        )
    from recon_pipeline.faces import alerts as face

    attempts = face.send_test(targets)
    if as_json:
        show_json(face.as_json(attempts))
    else:
        face.show(attempts)
    return EXIT_CLEAN if face.all_delivered(attempts) else EXIT_NOT_CLEAN
