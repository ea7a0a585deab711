"""What about the log made keys doubtful, by names that are kept in `recon.counter_drift` and `recon.open_key`.

Invariant: only a declaration of its owner or a counter that matches ends a doubt that a run has seen, whatever became
of that run. Where it has ended otherwise, the events that made it are gone: they are in no stored sum, so that nothing
else tells that they left. SQL files name the doubts that they find by the same names.
"""

from sqlalchemy import Connection

from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.postgres.statements import labelled
from recon_pipeline.store.sums.run import Reconciliation

WRITTEN_TWICE = "written twice"
"""Its period is written in another way elsewhere."""
UNDER_TWO_PERIODS = "under two periods"
"""Its counter is under one period, and its events are under another."""
DIGITS = "digits of a second"
"""The counters cannot keep its period exactly; there is no counter that could follow what leaves."""
_NEGATIVE = "negative quantities"

# Remembers what makes keys of a run doubtful.
# Invariant: what is known of a key already is not written again.
# Index: the primary key of recon.counter_drift, by run; that of recon.open_key.
# Binds: run_id text
_NOTE = labelled(
    "note_doubts",
    """
    insert into recon.open_key as open (
        gateway_name, usage_type, gateway_customer_id, period_start, period_end, reason, error, doubts
    )
    select gateway_name, usage_type, gateway_customer_id, period_start, period_end, 'doubtful', error, doubts
    from recon.counter_drift
    where run_id = :run_id
        and doubts <> '{}'
    order by gateway_name, usage_type, gateway_customer_id, period_start, period_end
    on conflict (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
    do update set
        doubts = array(select unnest(open.doubts) union select unnest(excluded.doubts) order by 1),
        noted_xid = excluded.noted_xid
    where not open.doubts @> excluded.doubts
    """,
)


def of_identity(tables: BillingTables, *, is_of_credits: bool = False) -> str:
    """The doubt of a key of which an event shares its identity with another; one of the two may be a credit."""
    return f"identity {tables.event_identity}{', credits' if is_of_credits else ''}"


def all_of_identity(tables: BillingTables) -> list[str]:
    """Both of them."""
    return [of_identity(tables), of_identity(tables, is_of_credits=True)]


def standing(run: Reconciliation, tables: BillingTables) -> list[str]:
    """The doubts that nobody has ended since by saying what the log means."""
    found = [WRITTEN_TWICE, UNDER_TWO_PERIODS]
    if run.refuses_negative:
        found.append(_NEGATIVE)
    if not tables.refuses_repetitions:
        found += all_of_identity(tables)
    return found


def standing_of_credits(tables: BillingTables) -> list[str]:
    """Those among them of which a credit may have left that no stored sum had."""
    return [] if tables.refuses_repetitions else [of_identity(tables, is_of_credits=True)]


def note(connection: Connection, run_id: str) -> None:
    """Remember what makes keys of a run doubtful, until their counters match.

    Args:
        connection: In a READ COMMITTED transaction.
        run_id: Of the run.
    """
    connection.execute(_NOTE, {"run_id": run_id})
