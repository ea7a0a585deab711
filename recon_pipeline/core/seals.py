"""The chain of seals: each is bound to the one before, so that none can be changed or taken out unnoticed."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

FIRST_LINK = ""
"""What the first seal of all is bound to."""


@dataclass(frozen=True)
class Seal:
    """One sealing or reopening of a billing month of one metered usage.

    Attributes:
        kind: `sealed` or `reopened`.
        gateway_name: Of the metered usage.
        usage_type: Of the metered usage.
        partition: The billing month, `YYYY-MM`.
        acted_at: When.
        acted_by: Who.
        reason: Why; always there for a reopening.
        run_id: The run that sealed it, or None for a command.
        seen: The snapshot at which the month was read.
        key_count: Keys with a sealed sum.
        nonzero_count: Those whose sum is not 0.
        event_count: Events that count.
        usage_count: Units that they add up to.
        checksum: Of the keys with their sums and events, in whichever order.
        lake_source: Which count in the lake the sums are of, with what they can be derived from again; None: they are
            of the log.
    """

    kind: str
    gateway_name: str
    usage_type: str
    partition: str
    acted_at: datetime
    acted_by: str
    reason: str | None
    run_id: str | None
    seen: str
    key_count: int
    nonzero_count: int
    event_count: int
    usage_count: Decimal
    checksum: str
    lake_source: Mapping[str, Any] | None = None


def chained(previous_chain: str, seal: Seal) -> str:
    """The checksum of a seal and of the chain before it.

    Returns:
        64 hexadecimal digits.
    """
    content = asdict(seal) | {"acted_at": seal.acted_at.astimezone(UTC).isoformat(timespec="microseconds")}
    content["usage_count"] = str(int(seal.usage_count))
    if seal.lake_source is None:
        del content["lake_source"]  # the chain of a seal of the log is what it was before lakes could be sealed
    text = json.dumps([previous_chain, content], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
