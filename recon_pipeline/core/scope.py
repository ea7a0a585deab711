"""The scope: the pairs of gateway and usage type that are reconciled. Nothing else is read or changed."""

from dataclasses import dataclass
from datetime import datetime

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.periods import BillingMonth, months_between


@dataclass(frozen=True, order=True)
class MeteredUsage:
    """One metered thing of one gateway, written `gateway:usage_type`."""

    gateway_name: str
    usage_type: str

    def __str__(self) -> str:
        """As it is written in `RECON_SCOPE`."""
        return f"{self.gateway_name}:{self.usage_type}"


@dataclass(frozen=True)
class Extent:
    """The part of log and counters that one run covers.

    Attributes:
        scope: The metered usages, sorted, at least one.
        first: First billing month.
        last: Last billing month, included; months between are all in.
        customers: Only these customers (`gateway_customer_id`), or None for every customer.
    """

    scope: tuple[MeteredUsage, ...]
    first: BillingMonth
    last: BillingMonth
    customers: tuple[str, ...] | None = None

    @property
    def months(self) -> tuple[BillingMonth, ...]:
        """The months from first to last."""
        return months_between(self.first, self.last)

    @property
    def start(self) -> datetime:
        """Periods that start at or after this instant are in."""
        return self.first.start

    @property
    def end(self) -> datetime:
        """Periods that start at or after this instant are out."""
        return self.last.end


def parse_scope(text: str) -> tuple[MeteredUsage, ...]:
    """Read `gateway:usage_type,gateway:usage_type`.

    Returns:
        The pairs, sorted, without repetition.

    Raises:
        ConfigurationError: A part is not a pair, or there is none.
    """
    pairs: set[MeteredUsage] = set()
    for part in text.split(","):
        gateway_name, colon, usage_type = (piece.strip() for piece in part.partition(":"))
        if not (gateway_name and colon and usage_type):
            raise ConfigurationError(
                f"RECON_SCOPE has the part {part.strip()!r}, which is not gateway:usage_type.",
                fix="Set it like RECON_SCOPE=stripe:remote_commands,stripe:sms_messages.",
            )
        pairs.add(MeteredUsage(gateway_name, usage_type))
    return tuple(sorted(pairs))
