"""The component `recon_pipeline.ReconciledUsage`: an installation described by YAML (`dg scaffold defs`).

An attribute that is not given has the value of its environment variable.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from pydantic import Field

from recon_pipeline.assets.reconciled_database import ReconciledDatabase
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.definitions import build_definitions


class Limits(dg.Model, dg.Resolvable):
    """How much of a usage type a customer may use in a billing period."""

    free: int = Field(description="Without a paid subscription that covers the period.")
    paid: int = Field(description="With one.")


class Usage(dg.Model, dg.Resolvable):
    """One metered usage."""

    gateway: str = Field(default="stripe", description="gateway_name in log and counters.")
    usage_type: str = Field(description="usage_type in log and counters.")
    limits: Limits | None = Field(default=None, description="Its limits. Unset: those of RECON_QUOTAS.")


class Budgets(dg.Model, dg.Resolvable):
    """The largest repair in 24 hours that needs no approval."""

    max_repairs: int | None = Field(default=None, description="Keys repaired (RECON_MAX_REPAIRS).")
    max_repair_share: float | None = Field(default=None, description="The same as a share (RECON_MAX_REPAIR_SHARE).")
    max_orphan_share: float | None = Field(
        default=None, description="Counters set to 0, as a share (RECON_MAX_ORPHAN_SHARE)."
    )
    max_over_quota_transitions: int | None = Field(
        default=None, description="Customers pushed over their limit (RECON_MAX_OVER_QUOTA_TRANSITIONS)."
    )
    max_events_left: int | None = Field(
        default=None, description="Events that left the log and counters follow (RECON_MAX_EVENTS_LEFT)."
    )


class ReconciledUsage(dg.Component, dg.Model, dg.Resolvable):
    """Keeps the usage-billing counters of a Postgres database equal to their event log, every 5 minutes.

    Assets, checks, jobs, schedules and the sensor for alerts. One component for each database. Each attribute has an
    environment variable as its default.
    """

    prefix: str | None = Field(
        default=None,
        description="Distinguishes it from other installations, and its jobs from yours: a letter, then letters, "
        "digits and single _. Unset: RECON_NAME.",
    )
    url_variable: str = Field(
        default="DATABASE_URL", description="The environment variable that holds the URL of the billing database."
    )
    usages: Sequence[Usage] = Field(default=(), description="What is reconciled. Empty: RECON_SCOPE and RECON_QUOTAS.")
    budgets: Budgets = Field(default_factory=Budgets, description="Unset ones: RECON_MAX_….")
    settle_seconds: int | None = Field(
        default=None,
        description="The longest time that an event is visible before its increment. Unset: RECON_SETTLE_SECONDS.",
    )
    identity: Sequence[str] = Field(
        default=(), description="The columns that name an event. Empty: RECON_EVENT_IDENTITY."
    )
    stripe_parity: str | None = Field(
        default=None, description="off or observe: compare the log with Stripe's meters. Unset: RECON_STRIPE_PARITY."
    )
    stripe_meters: Mapping[str, Any] = Field(
        default={}, description="Usage type to its meter and how it is sent. Empty: RECON_STRIPE_METERS."
    )
    run_tags: Mapping[str, Any] = Field(default={}, description="Tags of each run, for example dagster-k8s/config.")

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """All of it, as `build_definitions` makes it.

        Raises:
            ConfigurationError: An attribute cannot be used.
        """
        database = ReconciledDatabase(
            url_variable=self.url_variable,
            scope=[f"{usage.gateway}:{usage.usage_type}" for usage in self.usages],
            quotas=_quotas(self.usages),
            settle_seconds=self.settle_seconds,
            event_identity=list(self.identity),
            stripe_parity=self.stripe_parity,
            stripe_meters=dict(self.stripe_meters),
            **self.budgets.model_dump(),
        )
        return build_definitions(name=self.prefix, database=database, run_tags=self.run_tags)


def _quotas(usages: Sequence[Usage]) -> dict[str, Any]:
    quotas: dict[str, Any] = {}
    for usage in usages:
        if usage.limits is None:
            continue
        limits = usage.limits.model_dump()
        if quotas.setdefault(usage.usage_type, limits) != limits:
            raise ConfigurationError(
                f"usages has two limits for the usage type {usage.usage_type}.",
                fix="Limits are of a usage type, whichever gateway meters it: give it the same limits everywhere.",
            )
    return quotas
