"""Events that the application marks as deleted and leaves in the log: nobody but the owner knows whether they count.

Invariant: no drifted counter of a key with such an event changes, before `RECON_DELETED_EVENTS=sum` says that they
count or they are out of the log. An event that is marked between a run's comparison and its repair is noted by the
trigger, where there is one; then its key waits for the next run.
"""

from sqlalchemy import Connection

from recon_pipeline.store.postgres.statements import labelled

# Makes the drifted keys of a run doubtful that have events which are marked as deleted.
# Invariant: in the transaction of the comparison, after it. Only the catalog shows which columns mark events, so a
# row is read as JSON. A key that is doubtful already keeps its reason, and has one doubt more. Keys of sealed months
# follow their seal.
# Index: the primary key of recon.counter_drift, by run; the log by customer.
# Binds: marks text[], run_id text
_MARK = labelled(
    "mark_deleted_events",
    """
    with marked as materialized (
        select key.run_id, key.ordinal, count(*) as events
        from recon.counter_drift as key
        join billing_usage_events as event
            using (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
        where key.run_id = :run_id
            and key.seal_id is null
            and exists (
                select
                from unnest(cast(:marks as text[])) as mark
                where coalesce(to_jsonb(event) ->> mark, '') not in ('', 'false', '0')
            )
        group by key.run_id, key.ordinal
    )
    update recon.counter_drift as drift
    set
        outcome = 'doubtful',
        error = coalesce(
            drift.error,
            format(
                '%s of its events are marked as deleted (%s): take them out of the log if they do not count, '
                'or set RECON_DELETED_EVENTS=sum if they do',
                marked.events, array_to_string(cast(:marks as text[]), ', ')
            )
        ),
        doubts = drift.doubts || array['marked as deleted']
    from marked
    -- The run comes from `marked`, as in doubt_events_left.
    where (drift.run_id, drift.ordinal) = (marked.run_id, marked.ordinal)
    """,
)


def mark(connection: Connection, run_id: str, marks: tuple[str, ...]) -> None:
    """Make the drifted keys of a run doubtful that have events which are marked as deleted.

    Args:
        connection: In the transaction of the comparison, after it.
        run_id: Of the run.
        marks: The columns of the log that mark events.
    """
    if marks:
        connection.execute(_MARK, {"run_id": run_id, "marks": list(marks)})
