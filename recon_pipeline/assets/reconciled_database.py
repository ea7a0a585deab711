"""The billing database as a resource of Dagster: which one it is, and what in it is reconciled how.

Invariant: a field that is not set has the value of its environment variable, read at each use. So a definition holds no
secret and loads without a variable. The same code checks fields and variables.
"""

import json
import os
from typing import Any

import dagster as dg
from pydantic import Field

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.parity_settings import ParitySettings, observes, read_meters, read_parity
from recon_pipeline.settings import Settings, read_settings
from recon_pipeline.store.postgres.database import BillingDatabase, open_database

_LISTS = ("scope", "event_identity")
_NUMBERS = (
    "settle_seconds",
    "max_repairs",
    "max_repair_share",
    "max_orphan_share",
    "max_over_quota_transitions",
    "max_events_left",
)


class ReconciledDatabase(dg.ConfigurableResource[Any]):
    """The billing database of one installation."""

    url_variable: str = Field(
        default="DATABASE_URL",
        description="The environment variable that holds the URL of the billing database. Not the URL itself: "
        "Dagster shows and stores what a resource is configured with.",
    )
    scope: list[str] = Field(
        default=[], description="What is reconciled, each as gateway:usage_type. Empty: the value of RECON_SCOPE."
    )
    quotas: dict[str, Any] = Field(
        default={},
        description="Limits: usage type to free and paid, a number each. Empty: the value of RECON_QUOTAS.",
    )
    event_identity: list[str] = Field(
        default=[], description="The columns that name an event. Empty: the value of RECON_EVENT_IDENTITY."
    )
    settle_seconds: int | None = Field(default=None, description="Unset: the value of RECON_SETTLE_SECONDS.")
    max_repairs: int | None = Field(default=None, description="Unset: the value of RECON_MAX_REPAIRS.")
    max_repair_share: float | None = Field(default=None, description="Unset: the value of RECON_MAX_REPAIR_SHARE.")
    max_orphan_share: float | None = Field(default=None, description="Unset: the value of RECON_MAX_ORPHAN_SHARE.")
    max_over_quota_transitions: int | None = Field(
        default=None, description="Unset: the value of RECON_MAX_OVER_QUOTA_TRANSITIONS."
    )
    max_events_left: int | None = Field(default=None, description="Unset: the value of RECON_MAX_EVENTS_LEFT.")

    stripe_parity: str | None = Field(
        default=None,
        description="off or observe: compare with Stripe's meters. Unset: the value of RECON_STRIPE_PARITY.",
    )
    stripe_meters: dict[str, Any] = Field(
        default={},
        description="Usage type to its meter and how it is sent. Empty: the value of RECON_STRIPE_METERS.",
    )

    def settings(self) -> Settings:
        """The settings: these fields, and the environment for those that are not set.

        Raises:
            ConfigurationError: A value cannot be used, or `url_variable` names a variable that is not set.
        """
        return read_settings({**os.environ, **self._declared(), **self._url()})

    def require_valid(self) -> None:
        """Check the fields alone, whatever the environment says: when definitions load.

        Raises:
            ConfigurationError: A value cannot be used.
        """
        read_settings(self._declared())
        observes(self._declared())
        read_meters(self._declared())

    def observes_stripe(self) -> bool:
        """Whether the log is compared with Stripe's meters: what definitions contain depends on it.

        Raises:
            ConfigurationError: As `parity` does.
        """
        return observes({**os.environ, **self._declared()})

    def parity(self) -> ParitySettings:
        """The settings of the comparison with Stripe, in the same way.

        Raises:
            ConfigurationError: A value cannot be used, or is not set.
        """
        return read_parity({**os.environ, **self._declared()})

    def open(self) -> BillingDatabase:
        """The database; it is connected to when it is used.

        Raises:
            ConfigurationError: As `settings` does.
        """
        return open_database(self.settings())

    def _declared(self) -> dict[str, str]:
        variables = {f"RECON_{name.upper()}": ",".join(getattr(self, name)) for name in _LISTS if getattr(self, name)}
        for name in _NUMBERS:
            if getattr(self, name) is not None:
                variables[f"RECON_{name.upper()}"] = str(getattr(self, name))
        if self.quotas:
            variables["RECON_QUOTAS"] = json.dumps(self.quotas)
        if self.stripe_parity is not None:
            variables["RECON_STRIPE_PARITY"] = self.stripe_parity
        if self.stripe_meters:
            variables["RECON_STRIPE_METERS"] = json.dumps(self.stripe_meters)
        return variables

    def _url(self) -> dict[str, str]:
        if self.url_variable == "DATABASE_URL":
            return {}
        url = os.environ.get(self.url_variable)
        if not url:
            raise ConfigurationError(
                f"{self.url_variable} is not set; it is to hold the URL of the billing database.",
                fix=f"Set it like {self.url_variable}=postgresql://user:password@host:5432/database.",
            )
        return {"DATABASE_URL": url}
