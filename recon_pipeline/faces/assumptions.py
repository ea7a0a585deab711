"""What this installation assumes about log and counters, in plain words, and the source of each assumption.

The tables cannot prove any of them, and a wrong one lets runs repair counters to wrong values. So they are shown, and a
person can object. Each is one function here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from recon_pipeline.core.errors import ReconError, SchemaVersionError
from recon_pipeline.settings import Settings, known_months, start_period_is_declared
from recon_pipeline.store.log.billing_tables import BillingTables, require_trustworthy
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.records.retention import Retention, read_retention


@dataclass(frozen=True)
class Assumption:
    """One assumption.

    Attributes:
        about: `identity`, `completeness`, `periods`, `limits`, `quantities`,
            `deletion` or `settling`.
        assumed: What, as a sentence.
        learnt_from: The setting, unique key or default that says so.
    """

    about: str
    assumed: str
    learnt_from: str


@dataclass(frozen=True)
class _Known:
    """What is known of an installation.

    Attributes:
        settings: What the variables say.
        tables: How the tables are shaped, if they can be read.
        retention: Which months are declared to be no longer in the log.
        unread: Why the tables are not known, if so.
    """

    settings: Settings
    tables: BillingTables | None = None
    retention: Retention | None = None
    unread: str = "the log could not be read"


_NOT_PREPARED = "the database is not prepared for this release yet; recon init compares it with the log's unique keys"


def read_assumptions(settings: Settings, url: str) -> tuple[Assumption, ...]:
    """All assumptions; if the tables cannot be read, what only they show is said to be unknown.

    Args:
        settings: What the variables say.
        url: Of the billing database.
    """
    known = _Known(settings)
    try:
        with BillingDatabase(url, event_identity=settings.event_identity).transaction() as connection:
            known = _Known(settings, require_trustworthy(connection), read_retention(connection))
    except SchemaVersionError as error:
        known = _Known(settings, unread="schema recon is of a newer release" if error.is_newer else _NOT_PREPARED)
    except ReconError:
        pass  # which requirement fails is shown by the findings
    return tuple(rule(known) for rule in _RULES)


def in_words(assumptions: tuple[Assumption, ...]) -> str:
    """The paragraph for a person."""
    return "What this installation assumes: " + " ".join(f"{one.assumed} ({one.learnt_from})." for one in assumptions)


def _identity(known: _Known) -> Assumption:
    *columns, last = known.settings.event_identity.columns
    if known.tables is None:
        learnt_from = f"RECON_EVENT_IDENTITY; {known.unread}"
    elif known.tables.refuses_repetitions:
        learnt_from = "RECON_EVENT_IDENTITY, and a unique key of the log"
    elif known.tables.wider_key is not None:
        learnt_from = (
            "RECON_EVENT_IDENTITY; the log declares a wider key, so counters whose events share these are left alone"
        )
    else:
        learnt_from = "RECON_EVENT_IDENTITY; no unique key of the log says so, and the first event of each counts"
    return Assumption("identity", f"An event is named by its {', '.join(columns)} and {last}", learnt_from)


def _completeness(known: _Known) -> Assumption:
    first = known_months()[0].key
    learnt_from = "RECON_START_PERIOD" if start_period_is_declared() else "the default of RECON_START_PERIOD"
    if known.retention is not None and known.retention.before_partition > first:
        first, learnt_from = known.retention.before_partition, "recon retention"
    return Assumption(
        "completeness",
        f"The log holds all events from {first} on, and a counter without events there is wrong",
        learnt_from,
    )


def _periods(_: _Known) -> Assumption:
    return Assumption(
        "periods",
        "An event belongs to the period that it names, and the counter of exactly this period counts it",
        "period_start and period_end of each event",
    )


def _limits(known: _Known) -> Assumption:
    settings = known.settings
    limited = [usage for usage in settings.scope if usage.usage_type in settings.quotas]
    if not limited:
        return Assumption("limits", "No usage has a limit", "RECON_QUOTAS")
    if known.tables is not None and not known.tables.has_subscriptions:
        return Assumption("limits", "Limits are unknown", "there is no billing_subscriptions")
    quotas = ", ".join(
        f"{usage} {settings.quotas[usage.usage_type].free:,} free and {settings.quotas[usage.usage_type].paid:,} paid"
        for usage in limited
    )
    statuses = " or ".join(settings.paid_statuses)
    return Assumption(
        "limits",
        f"The limits are {quotas}; a customer has the paid one with a subscription that is {statuses}",
        "RECON_QUOTAS, RECON_PAID_STATUSES, billing_subscriptions",
    )


def _quantities(known: _Known) -> Assumption:
    if known.settings.refuses_negative:
        assumed = (
            "Nobody has said that events of negative quantity are credits, and no counter of a key with one is changed"
        )
    else:
        assumed = "Events of negative quantity are credits, and are summed as others are"
    return Assumption("quantities", assumed, "RECON_NEGATIVE_QUANTITIES")


def _deleted(known: _Known) -> Assumption:
    marks = "" if known.tables is None else ", ".join(known.tables.deletion_marks)
    if not marks:
        assumed = "Every row of the log is an event that counts"
    elif known.settings.refuses_deleted:
        assumed = (
            f"Nobody has said whether events that {marks} marks as deleted count, and no counter of a key with one is "
            "changed"
        )
    else:
        assumed = f"Events that {marks} marks as deleted count as others do"
    return Assumption("deletion", assumed, "RECON_DELETED_EVENTS, the columns of the log")


def _settling(known: _Known) -> Assumption:
    seconds = known.settings.settle_seconds
    if seconds == 0:
        assumed = "The application increments the counter in the transaction that inserts the event"
    else:
        assumed = f"The application increments the counter at most {seconds:,} s after the event"
    return Assumption("settling", assumed, "RECON_SETTLE_SECONDS")


_RULES: tuple[Callable[[_Known], Assumption], ...] = (
    _identity,
    _completeness,
    _periods,
    _limits,
    _quantities,
    _deleted,
    _settling,
)
