"""Why runs left a counter alone as doubtful for what the log means, in words that are kept in `recon.open_key`.

Invariant: only a declaration of its owner or a counter that matches ends such a doubt. Where it has ended otherwise,
the events that made it are gone: they are in no stored sum, so that nothing else tells that they left.
"""

from recon_pipeline.store.counters import doubt_of_identity, doubt_of_periods
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.sums.run import Reconciliation

_PERIODS = "periods"
_NEGATIVE = "negative quantities"
_OF_NEGATIVE = " events of negative quantity: set RECON_NEGATIVE_QUANTITIES=sum"


def _identity(tables: BillingTables) -> str:
    return f"identity {tables.event_identity}"


def _identity_of_credits(tables: BillingTables) -> str:
    return f"{_identity(tables)}, credits"


def of(error: str, tables: BillingTables) -> str | None:
    """The doubt that a run gave as its reason to leave a key alone, or None if it was another one."""
    if error.startswith((doubt_of_periods.SENTENCE, doubt_of_periods.OF_TWO_PERIODS)):
        return _PERIODS
    if _OF_NEGATIVE in error:
        return _NEGATIVE
    if error == doubt_of_identity.reason(tables) + doubt_of_identity.OF_CREDITS:
        return _identity_of_credits(tables)
    return _identity(tables) if error == doubt_of_identity.reason(tables) else None


def standing(run: Reconciliation, tables: BillingTables) -> list[str]:
    """The doubts that nobody has ended since by saying what the log means."""
    found = [_PERIODS]
    if run.refuses_negative:
        found.append(_NEGATIVE)
    if not tables.refuses_repetitions:
        found += [_identity(tables), _identity_of_credits(tables)]
    return found


def standing_of_credits(tables: BillingTables) -> list[str]:
    """Those among them of which a credit may have left that no stored sum had."""
    return [] if tables.refuses_repetitions else [_identity_of_credits(tables)]
