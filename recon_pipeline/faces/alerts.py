"""What `recon alerts` does: sends each target a message, and reports which accepted it."""

from collections.abc import Sequence
from typing import Any

from recon_pipeline.automation.alert_delivery import Attempt, send_to_all
from recon_pipeline.core.alert_targets import AlertTarget
from recon_pipeline.core.alerts import Message, Severity
from recon_pipeline.faces.console import out

_TEST = Message(
    Severity.WARN,
    is_resolved=False,
    title="[recon] Test",
    body="This is what recon alerts test sends. Nothing is wrong; alerts will come to where you read this.",
    # An incident that is resolved at once.
    failing=("recon alerts test",),
    resolved=("recon alerts test",),
)


def send_test(targets: Sequence[AlertTarget]) -> tuple[Attempt, ...]:
    """Send a message to each target."""
    return send_to_all(targets, _TEST)


def all_delivered(attempts: Sequence[Attempt]) -> bool:
    """Whether every target took it."""
    return all(one.error is None for one in attempts)


def as_json(attempts: Sequence[Attempt]) -> dict[str, Any]:
    """The one object of `--json`."""
    targets = [{"target": one.target, "delivered": one.error is None, "error": one.error} for one in attempts]
    return {"success": all_delivered(attempts), "targets": targets}


def show(attempts: Sequence[Attempt]) -> None:
    """The same for a person."""
    for one in attempts:
        result = "took the message" if one.error is None else f"did not take it: {one.error}"
        out.print(f"Target {one.target} {result}", markup=False, soft_wrap=True)
