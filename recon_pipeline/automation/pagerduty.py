"""Opens and resolves PagerDuty's incidents through its Events API v2.

Invariant: what fails is one incident, from its first message to the one that it passes again, because all of them carry
one `dedup_key`; an event that is sent twice changes nothing. Apprise reads the address.
"""

import hashlib
import json
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from apprise.plugins.pagerduty import PAGERDUTY_API_LOOKUP

from recon_pipeline.core.alert_markup import links
from recon_pipeline.core.alerts import Message, Severity

_SEVERITY = {Severity.ERROR: "critical", Severity.WARN: "warning"}
_LONGEST_SUMMARY = 1_024
_SECONDS = 10


def send(service: Any, message: Message) -> str | None:
    """Trigger what fails and resolve what passes; return why PagerDuty did not take it, or None.

    Args:
        service: Apprise's `NotifyPagerDuty`, for the address's integration key, region and severity.
        message: With its incidents.
    """
    url = PAGERDUTY_API_LOOKUP[service.region_name]
    events = [("trigger", one) for one in message.failing] + [("resolve", one) for one in message.resolved]
    for action, incident in events:
        payload = {
            "summary": f"[recon {message.severity}] {incident}"[:_LONGEST_SUMMARY],
            "source": "recon_pipeline",
            "severity": service.severity or _SEVERITY[message.severity],
            "custom_details": {"message": message.body},
        }
        event = {
            "routing_key": service.integration_key,
            "event_action": action,
            "dedup_key": hashlib.sha256(incident.encode()).hexdigest(),
            "client": "recon_pipeline",
            "links": [{"href": link, "text": "Open in Dagster"} for link in links(message.body)],
            "payload": payload,
        }
        if error := _post(url, event):
            return error
    return None


def _post(url: str, event: dict[str, Any]) -> str | None:
    # The address is Apprise's constant for a region.
    request = Request(url, json.dumps(event).encode(), {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urlopen(request, timeout=_SECONDS):  # noqa: S310
            return None
    except HTTPError as error:
        with error:
            return f"PagerDuty answered {error.code} {error.reason}"
    except (OSError, HTTPException) as error:
        return f"PagerDuty could not be reached: {error}"
