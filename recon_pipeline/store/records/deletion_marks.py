"""Whether the log has a column that marks events as deleted, and what is done about them."""

from collections.abc import Iterator

from sqlalchemy import Connection

from recon_pipeline.core.findings import Finding, noted, passed
from recon_pipeline.store.log.shape import deletion_marks
from recon_pipeline.store.log.tables import EVENTS, describe_table


def check_deletion_marks(connection: Connection, *, refuses: bool) -> Iterator[Finding]:
    """What marks events as deleted, if anything does.

    Args:
        connection: In a transaction.
        refuses: Nobody has declared that such events count.
    """
    name = "deleted events"
    events = describe_table(connection, EVENTS)
    marks = deletion_marks(events) if events is not None else ()
    if not marks:
        return
    columns = ", ".join(marks)
    yield (
        noted(
            name,
            f"{EVENTS} has {columns}: nobody has said whether an event that this marks as deleted counts. Sums have "
            "it, and a drifted counter of a key with one is left as it is",
            "If it counts: set RECON_DELETED_EVENTS=sum. If not: take such events out of the log (delete them, or move "
            "them to another table), in the transaction that changes the counter.",
        )
        if refuses
        else passed(name, f"RECON_DELETED_EVENTS=sum: events that {columns} marks count as others do")
    )
