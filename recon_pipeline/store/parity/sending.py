"""How one usage type is sent to its meter, as the statements that read the log bind it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from recon_pipeline.core.parity.metering import Metering
from recon_pipeline.core.scope import Extent, MeteredUsage
from recon_pipeline.store.log.billing_tables import BillingTables

_LENGTHS = {"each": timedelta(0), "hour": timedelta(hours=1), "day": timedelta(days=1)}


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
    def named(self) -> dict[str, Any]:
        """The metered usage, as statements bind it."""
        return {"gateway_name": self.usage.gateway_name, "usage_type": self.usage.usage_type}

    @property
    def key(self) -> dict[str, Any]:
        """The metered usage and its months."""
        return {**self.named, "start": self.extent.start, "end": self.extent.end}

    def in_log(self, tables: BillingTables) -> dict[str, Any]:
        """The same, and the months of which the log need not have the events."""
        absent = tables.absent_within(self.usage, self.extent)
        return {
            **self.key,
            "absent_months": [one.month.start for one in absent],
            "absent_until": [one.covers_until for one in absent],
        }

    @property
    def sum_length(self) -> timedelta:
        """Of the hour or day that is sent as one sum; none where each event is sent."""
        return _LENGTHS[self.metering.sends]

    @property
    def stamp(self) -> dict[str, Any]:
        """From which column a timestamp is taken, and how it is rounded."""
        seconds = self.sum_length.total_seconds()
        return {
            "time_column": self.metering.timestamp,
            "sum_seconds": seconds,
            "stamp_after_seconds": seconds if self.metering.stamped_at == "end" else 0.0,
        }

    def parameters(self, tables: BillingTables, *, settled_before: datetime | None) -> dict[str, Any]:
        """What the part sent_events binds, and what is settled."""
        return {
            **self.named,
            **tables.parameters,
            **self.stamp,
            "customer_path": self.metering.customer.split("."),
            "settled_before": settled_before,
        }
