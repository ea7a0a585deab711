"""`recon retention`: declares which billing months are no longer in the log, or shows the declaration."""

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


def declare_or_read(settings: Settings, before: BillingMonth | None, *, reason: str | None) -> Retention | None:
    """Declare the months before this one to be no longer in the log, if one is given; return what is in force.

    Args:
        settings: Name the database.
        before: The first billing month of which the log has all events, or None to declare nothing.
        reason: Why; given if `before` is.

    Raises:
        ConfigurationError: Only one of both is given, or the month lies in the future.
        ReconError: The database cannot be used.
    """
    if (before is None) != (reason is None):
        raise ConfigurationError(
            "--before and --reason belong together, and only one of them was given.",
            fix='Give both, for example recon retention --before 2026-01 --reason "events are kept for 12 months".',
        )
    if before is None or reason is None:
        with billing_database(settings).transaction() as connection:
            return store.read_retention(connection)
    current = known_months()[1]
    if before > current:
        raise ConfigurationError(
            f"--before {before.key} lies in the future: the current month is {current.key}, and its events are needed.",
            fix=f"Give {current.key} or an earlier month.",
        )
    with billing_database(settings).transaction(lock_timeout_ms=_WAITS_MS) as connection:
        store.declare(connection, before, reason=reason, declared_by=user_name())
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
