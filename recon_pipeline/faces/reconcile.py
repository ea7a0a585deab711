"""`recon reconcile`: from a person's options to runs of contiguous months, and back to one answer."""

from dataclasses import dataclass

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.periods import BillingMonth, contiguous_ranges, months_between, require_known
from recon_pipeline.core.scope import Extent
from recon_pipeline.faces.billing import own_embedded_server
from recon_pipeline.faces.reconciled import Reconciled
from recon_pipeline.settings import RECENT_DAYS, Settings, known_months
from recon_pipeline.store.log.decision import decision
from recon_pipeline.store.postgres.database import open_database
from recon_pipeline.store.records.customers import require_known_customers
from recon_pipeline.store.records.retention import read_retention, require_in_the_log
from recon_pipeline.store.records.schedule import months_to_reconcile
from recon_pipeline.store.sums import modes


@dataclass(frozen=True)
class ReconcileOptions:
    """The options of the command as given.

    Attributes:
        periods: Partition keys, `YYYY-MM`.
        every_period: All months from RECON_START_PERIOD to the current one.
        customers: Only these.
        dry_run: Repair nothing.
        full: Take sums from the log itself.
        while_paused: Repair although repairs are paused.
        approve_reason: Why a repair beyond the budgets is right, or None.
        approve_run: The run whose figures were seen, or None for the latest.
    """

    periods: tuple[str, ...]
    every_period: bool
    customers: tuple[str, ...]
    dry_run: bool
    full: bool
    while_paused: bool
    approve_reason: str | None
    approve_run: str | None


def run_reconcile(settings: Settings, options: ReconcileOptions) -> tuple[Reconciled, ...]:
    """Reconcile what was asked for, one run for each contiguous range of months, in order.

    Raises:
        ConfigurationError: A period that does not exist or may not be touched, or a customer that is not known.
        ReconError: A run could not compare anything.
    """
    own_embedded_server(settings)
    months = _months(settings, options)
    if options.customers:
        with open_database(settings).transaction() as connection:
            require_known_customers(connection, options.customers)
    # Only now: wrong usage is reported before Dagster, which takes seconds to load.
    from recon_pipeline.faces.reconcile_job import Request, reconcile_each  # noqa: PLC0415

    requests = [
        Request(
            first,
            last,
            options.customers,
            options.dry_run,
            options.full,
            options.while_paused,
            options.approve_reason or "",
            options.approve_run or "",
        )
        for first, last in contiguous_ranges(months)
    ]
    return reconcile_each(settings, requests)


def _months(settings: Settings, options: ReconcileOptions) -> tuple[BillingMonth, ...]:
    if options.periods and options.every_period:
        raise ConfigurationError("--period and --all exclude each other.", fix="Give one of them.")
    first, current = known_months()
    if options.every_period:
        return months_between(first, current)
    if options.periods:
        months = tuple(BillingMonth.parse(key) for key in options.periods)
        require_known(months, first=first, current=current)
        with open_database(settings).transaction() as connection:
            require_in_the_log(read_retention(connection), months)
        return months
    return months_of_a_tick(settings)


def months_of_a_tick(settings: Settings) -> tuple[BillingMonth, ...]:
    """The months that a tick of the schedule would take.

    Raises:
        ReconError: The database cannot be reached, or the log cannot be trusted.
    """
    first, current = known_months()
    with open_database(settings).connection() as connection, decision(connection) as tables:
        mode = modes.choose(connection, tables).mode
        extent = Extent(settings.scope, first, current)
        return (*months_to_reconcile(connection, extent, tables, recent_days=RECENT_DAYS, mode=mode), current)
