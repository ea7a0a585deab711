"""Where alerts go: the addresses of `RECON_ALERT_URLS`. They hold secrets, so no part of one is ever shown.

People see a target as its place in the list and its kind (`2 (slack)`); the outbox stores a fingerprint.
"""

import hashlib
import re
from dataclasses import dataclass, field, replace

from recon_pipeline.core.alerts import Severity
from recon_pipeline.core.errors import ConfigurationError

_EXAMPLE = (
    'Set it like RECON_ALERT_URLS="error=pagerduty://... slack://...", addresses of Apprise with spaces between them.'
)
_ENTRY = re.compile(r"(?:(?P<severity>[a-zA-Z]+)=)?(?P<url>(?P<kind>[a-zA-Z][a-zA-Z0-9+.-]*)://\S+)")


@dataclass(frozen=True)
class AlertTarget:
    """One address and what is sent to it.

    Attributes:
        place: Its position in the list, from 1.
        kind: The address's scheme, such as `slack`.
        url: In the syntax of Apprise.
        severities: Which messages go there.
    """

    place: int
    kind: str
    url: str = field(repr=False)
    severities: frozenset[Severity]

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.place} ({self.kind})"

    @property
    def fingerprint(self) -> str:
        """Changes only if the address changes."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:16]


def parse_alert_urls(text: str) -> tuple[AlertTarget, ...]:
    """The targets; `error=` before an address sends it errors alone, `warn=` warnings alone.

    Raises:
        ConfigurationError: An entry is not an address, or its severity is unknown. Names the entry by its place.
    """
    targets: dict[str, AlertTarget] = {}
    for place, entry in enumerate(text.split(), start=1):
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise ConfigurationError(
                f"RECON_ALERT_URLS: entry {place} is not an address like kind://....", fix=_EXAMPLE
            )
        severity = match["severity"]
        if severity is not None and severity.lower() not in set(Severity):
            raise ConfigurationError(
                f"RECON_ALERT_URLS: the text before the = in entry {place} is neither error nor warn.", fix=_EXAMPLE
            )
        wanted = frozenset((Severity(severity.lower()),) if severity else tuple(Severity))
        target = AlertTarget(place, match["kind"].lower(), match["url"], wanted)
        if (before := targets.get(target.url)) is not None:
            target = replace(before, severities=before.severities | wanted)
        targets[target.url] = target
    return tuple(targets.values())
