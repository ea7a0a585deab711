"""The pause of repairs: detection and checks go on, no counter is changed.

Invariant: when `pause` returns, no repair writes any more. It commits the pause, and then waits for the chunks that are at work: a
chunk takes a shared lock and reads the pause in the statement after that, so either the pause waits for the chunk, or
the chunk sees the pause. The newest row of `recon.control` says what is so; a pause ends by the database's clock.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from recon_pipeline.store.statements import statement


@dataclass(frozen=True)
class Pause:
    """A pause of repairs that is in force.

    Attributes:
        reason: Why.
        paused_by: Who.
        paused_at: Since when.
        until: When it ends by itself, or None if somebody has to resume.
    """

    reason: str
    paused_by: str
    paused_at: datetime
    until: datetime | None

    def __str__(self) -> str:
        """For a person."""
        ends = f", until {self.until:%Y-%m-%d %H:%M} UTC" if self.until else ""
        return f"paused by {self.paused_by} at {self.paused_at:%Y-%m-%d %H:%M} UTC{ends}: {self.reason}"


def read_pause(connection: Connection) -> Pause | None:
    """The pause that is in force, or None where there is none or it has ended by the database's clock."""
    row = connection.execute(statement("read_pause")).mappings().one_or_none()
    return None if row is None else Pause(**row)
