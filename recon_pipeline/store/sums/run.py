"""The input of a run, and the parameters that all statements over an extent bind.

Knows no Dagster; a run is identified by its id alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from recon_pipeline.core.quotas import Quota
from recon_pipeline.core.scope import Extent, MeteredUsage
from recon_pipeline.settings import Settings
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.log.limits import limit_parameters

SAMPLE_ROWS = 20
"""Rows shown to a person beside an exact count."""


@dataclass(frozen=True)
class Reconciliation:
    """The input of one run, the same for each of its steps.

    Attributes:
        run_id: Dagster's id of the run.
        extent: What the run covers.
        settle_seconds: Longest time an event may be visible before its increment, in seconds.
        quotas: Limits by usage type.
        paid_statuses: With which a subscription gives its customer the paid limit.
        max_events_left: For how many events a day, that left the log, counters are lowered without an approval.
        refuses_negative: A drifted counter with an event of negative quantity is left alone, because nobody has
            declared that such events are credits.
        refuses_deleted: So is one with an event that is marked as deleted, because nobody has declared that it counts.
    """

    run_id: str
    extent: Extent
    settle_seconds: int
    quotas: Mapping[str, Quota]
    paid_statuses: tuple[str, ...]
    max_events_left: int = 0
    refuses_negative: bool = True
    refuses_deleted: bool = True

    @classmethod
    def of(cls, settings: Settings, run_id: str, extent: Extent) -> Self:
        """The input of a run over an extent, from the settings."""
        return cls(
            run_id=run_id,
            extent=extent,
            settle_seconds=settings.settle_seconds,
            quotas=settings.quotas,
            paid_statuses=settings.paid_statuses,
            max_events_left=settings.budgets.max_events_left,
            refuses_negative=settings.refuses_negative,
            refuses_deleted=settings.refuses_deleted,
        )

    def parameters(self, usage: MeteredUsage, tables: BillingTables) -> dict[str, Any]:
        """The parameters for one metered usage of the extent."""
        stand_ins = tables.standing_in(usage, self.extent)
        return {
            "run_id": self.run_id,
            "gateway_name": usage.gateway_name,
            "usage_type": usage.usage_type,
            "start": self.extent.start,
            "end": self.extent.end,
            "every_customer": self.extent.customers is None,
            "customers": list(self.extent.customers or ()),
            "every_key": True,
            "settle_seconds": self.settle_seconds,
            "refuses_negative": self.refuses_negative,
            "sample_rows": SAMPLE_ROWS,
            "seal_ids": [one.seal_id for one in stand_ins],
            "sealed_months": [one.month.start for one in stand_ins],
            "sealed_until": [one.covers_until for one in stand_ins],
            **limit_parameters(
                self.quotas.get(usage.usage_type), self.paid_statuses, has_subscriptions=tables.has_subscriptions
            ),
            **tables.parameters,
        }
