"""`recon alerts`: whether those who should be told can be told."""

import click

from recon_pipeline.core.alerts import Message, Severity
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.faces.console import EXIT_CLEAN, EXIT_NOT_CLEAN, json_option, out, show_json, telling_errors
from recon_pipeline.settings import read_alerting


@click.group(epilog="Example: recon alerts test")
def alerts() -> None:
    """Try out the alerts (the sensor alerts sends them)."""


@alerts.command(epilog="Example: recon alerts test --json")
@json_option
@telling_errors
def test(*, as_json: bool) -> int:
    """Send a message to each target of RECON_ALERT_URLS, and say which took it."""
    targets = read_alerting().targets
    if not targets:
        raise ConfigurationError(
            "RECON_ALERT_URLS is not set: there is nobody to tell.",
            changed="Nothing was sent.",
            fix='Set it like RECON_ALERT_URLS="error=pagerduty://… slack://…", addresses of Apprise.',
        )
    from recon_pipeline.automation.alert_delivery import Attempt, send

    message = Message(
        Severity.WARN,
        is_resolved=False,
        title="[recon] Test",
        body="This is what recon alerts test sends. Nothing is wrong; alerts will come to where you read this.",
    )
    attempts = [Attempt(target.name, message.title, send(target, message)) for target in targets]
    if as_json:
        told = [
            {"target": attempt.target, "delivered": attempt.error is None, "error": attempt.error}
            for attempt in attempts
        ]
        show_json({"success": all(one["delivered"] for one in told), "targets": told})
    else:
        for attempt in attempts:
            said = "took the message" if attempt.error is None else f"did not take it: {attempt.error}"
            out.print(f"Target {attempt.target} {said}", markup=False, soft_wrap=True)
    return EXIT_CLEAN if all(attempt.error is None for attempt in attempts) else EXIT_NOT_CLEAN
