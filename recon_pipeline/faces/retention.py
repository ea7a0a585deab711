"""What `recon retention` does: declares which billing months are no longer in the log, or shows what is declared."""

from dataclasses import asdict
from typing import Any

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.billing import billing_database
from recon_pipeline.faces.console import out
from recon_pipeline.faces.user import user_name
from recon_pipeline.settings import Settings, known_months
from recon_pipeline.store.records import retention as store
from recon_pipeline.store.records.retention import Retention

_WAITS_MS = 30_000
"""For a run that is writing what is known of the log; with a large log to be summed it may take longer."""


def declare(settings: Settings, before: BillingMonth, *, reason: str) -> Retention | None:
    """Declare the months before this one to be no longer in the log; returns what is in force then.

    Raises:
        ConfigurationError: The month lies in the future.
        ReconError: The database cannot be used.
    """
    current = known_months()[1]
    if before > current:
        raise ConfigurationError(
            f"--before {before.key} lies in the future: the current month is {current.key}, and its events are needed.",
            fix=f"Give {current.key} or an earlier month.",
        )
    with billing_database(settings).transaction(lock_timeout_ms=_WAITS_MS) as connection:
        store.declare(connection, before, reason=reason, declared_by=user_name())
        return store.read_retention(connection)


def read(settings: Settings) -> Retention | None:
    """What is declared, or None."""
    with billing_database(settings).transaction() as connection:
        return store.read_retention(connection)


def as_json(retention: Retention | None) -> dict[str, Any]:
    """The one object of `--json`."""
    return {"success": True, "retention": asdict(retention) if retention else None}


def show(retention: Retention | None) -> None:
    """The same for a person."""
    if retention is None:
        out.print("The log is complete, as far as anybody has declared: every known month is compared.")
        return
    out.print(f"{str(retention)[0].upper()}{str(retention)[1:]}.", markup=False, soft_wrap=True)
    out.print("No run compares them any more; their counters stay as they are.")
