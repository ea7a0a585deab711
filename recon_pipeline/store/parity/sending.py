"""How one usage type is sent to its meter, as the statements that read the log bind it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from recon_pipeline.core.parity.metering import Metering
from recon_pipeline.core.scope import Extent, MeteredUsage
from recon_pipeline.store.log.billing_tables import BillingTables

_SECONDS = {"each": 0.0, "hour": 3_600.0, "day": 86_400.0}


@dataclass(frozen=True)
class Sending:
    """The usage that is compared, and how its application reports it.

    Attributes:
        usage: Which.
        metering: How.
        extent: The months of its keys.
    """

    usage: MeteredUsage
    metering: Metering
    extent: Extent

    @property
    def key(self) -> dict[str, Any]:
        """The metered usage and its months, as statements bind them."""
        return {
            "gateway_name": self.usage.gateway_name,
            "usage_type": self.usage.usage_type,
            "start": self.extent.start,
            "end": self.extent.end,
        }

    def parameters(self, tables: BillingTables, *, settled_before: datetime) -> dict[str, Any]:
        """What the part sent_events binds, with the months of the keys."""
        length = _SECONDS[self.metering.sends]
        return {
            **self.key,
            **tables.parameters,
            "time_column": self.metering.timestamp,
            "sum_seconds": length,
            "stamp_after_seconds": length if self.metering.stamped_at == "end" else 0.0,
            "customer_path": self.metering.customer.split("."),
            "settled_before": settled_before,
        }
