"""Holds: customers whose counters are left alone for a while, in one billing month or in all of them.

Invariant: when `hold` returns, no repair writes these keys any more (see `control`). A hold ends by the database's clock or
when it is released; the run after that looks at what it had left alone.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from recon_pipeline.store.statements import statement


@dataclass(frozen=True)
class Hold:
    """A hold that is in force.

    Attributes:
        id: Of its row in `recon.hold`.
        gateway_customer_id: Whose counters are left alone, of every metered usage.
        partition: Only those of this billing month (`YYYY-MM`), or None for all months.
        reason: Why.
        held_by: Who.
        held_at: Since when.
        until: When it ends by itself.
    """

    id: int
    gateway_customer_id: str
    partition: str | None
    reason: str
    held_by: str
    held_at: datetime
    until: datetime


def open_holds(connection: Connection) -> tuple[Hold, ...]:
    """The holds that are in force by the database's clock, those that end first first."""
    return tuple(Hold(**row) for row in connection.execute(statement("open_holds")).mappings())
