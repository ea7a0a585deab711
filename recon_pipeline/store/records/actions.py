"""What people did by command: paused, resumed, held, released, declared.

Invariant: the command writes an action into its own table; this module only reads. An action becomes visible when its
transaction ends, some time after `acted_at`, so `OVERLAP_MINUTES` before a time are read again.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from recon_pipeline.store.postgres.statements import labelled

OVERLAP_MINUTES = 10
"""Longer than a command takes, and than the clocks of a server and its standby differ."""

FIRST_READ_HOURS = 24
"""How far somebody looks back who has read none so far."""

# The actions of people since a time, or of the last hours.
# Invariant: a hold is read twice, when it began and when it was released.
# Binds: first_hours integer, overlap_minutes integer, since timestamptz
_READ_ACTIONS = labelled(
    "read_actions",
    """
    select action, id, acted_at, acted_by, reason, until, subject
    from (
        select action, id, acted_at, acted_by, reason, until, null as subject from recon.control
        union all
        select 'hold', id, held_at, held_by, reason, until, concat_ws(' in ', gateway_customer_id, partition)
        from recon.hold
        union all
        select
            'release', id, released_at, released_by, release_reason, null,
            concat_ws(' in ', gateway_customer_id, partition)
        from recon.hold
        union all
        select 'retention', id, declared_at, declared_by, reason, null, before_partition from recon.retention
    ) as action
    where acted_at >= coalesce(
        cast(:since as timestamptz) - make_interval(mins => :overlap_minutes),
        clock_timestamp() - make_interval(hours => :first_hours)
    )
    order by acted_at, action, id
    """,
)


@dataclass(frozen=True)
class Action:
    """One action of a person.

    Attributes:
        action: `pause`, `resume`, `hold`, `release` or `retention`.
        id: Of its row.
        acted_at: When, by the database's clock.
        acted_by: Who.
        reason: Why, or None where none was given.
        until: When it ends by itself, or None.
        subject: The customer, with the billing month if it is about one alone; of a retention the month; else None.
    """

    action: str
    id: int
    acted_at: datetime
    acted_by: str
    reason: str | None
    until: datetime | None
    subject: str | None

    @property
    def name(self) -> str:
        """A name that no other action has, in any database."""
        return f"{self.action} {self.id} {self.acted_at.isoformat()}"


def read_actions(connection: Connection, *, since: datetime | None) -> tuple[Action, ...]:
    """What people did from shortly before that time on, or lately for None, in the order of time."""
    parameters = {"since": since, "overlap_minutes": OVERLAP_MINUTES, "first_hours": FIRST_READ_HOURS}
    return tuple(Action(**row) for row in connection.execute(_READ_ACTIONS, parameters).mappings())
