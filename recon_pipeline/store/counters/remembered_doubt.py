"""What about the log made keys doubtful, by names that are kept in `recon.counter_drift` and `recon.open_key`.

Invariant: only a counter that matches ends a doubt that a run has seen, whatever became of that run; and the owner's
word that negative quantities are credits. Where it has ended otherwise, the events that made it may be gone: they are
in no stored sum, so that nothing else shows that they left. SQL files name the doubts that they find by the same names.
"""

from sqlalchemy import Connection

from recon_pipeline.store.postgres.statements import labelled
from recon_pipeline.store.sums.run import Reconciliation

WRITTEN_TWICE = "written twice"
"""Its period is written in another way elsewhere."""
UNDER_TWO_PERIODS = "under two periods"
"""Its counter is under one period, and its events are under another."""
UNDER_TWO_CUSTOMERS = "under two customers"
"""Its counter is under one customer, and its events are under another."""
DIGITS = "digits of a second"
"""The counters cannot keep its period exactly; there is no counter that could follow what leaves."""
SHARED_IDENTITY = "shared identity"
"""One of its events has the identity of another event."""
SHARED_WITH_CREDIT = "shared identity, credits"
"""The same, where one of the two is a credit: so the counter is not raised for it either."""
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


def standing(run: Reconciliation) -> list[str]:
    """The doubts of a counter that is not lowered for them, unless it matches or a person approves.

    That credits count is for the owner to say. What names an event is, too; but events may have left before that was
    said, and nothing distinguishes them from those that no longer count.
    """
    found = [WRITTEN_TWICE, UNDER_TWO_PERIODS, UNDER_TWO_CUSTOMERS, SHARED_IDENTITY, SHARED_WITH_CREDIT]
    return [*found, _NEGATIVE] if run.refuses_negative else found


def note(connection: Connection, run_id: str) -> None:
    """Remember what makes keys of a run doubtful, until their counters match.

    Args:
        connection: In a READ COMMITTED transaction.
        run_id: Of the run.
    """
    connection.execute(_NOTE, {"run_id": run_id})
