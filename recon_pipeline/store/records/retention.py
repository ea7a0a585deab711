"""From which billing month on the log is complete, as a person has declared.

Invariant: the latest row counts. No run compares the months before it: their counters stay as they are, whatever the
log still has of them.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.store.postgres.statements import labelled
from recon_pipeline.store.sums.horizons import await_sums

# The latest declaration of which months the log still has.
_READ_RETENTION = labelled(
    "read_retention",
    """
    select before_partition, reason, declared_by, declared_at
    from recon.retention
    order by id desc
    limit 1
    """,
)
# Declares the months before one to be no longer in the log.
# Invariant: nothing is ever changed or deleted.
# Binds: before_partition text, declared_by text, reason text
_DECLARE_RETENTION = labelled(
    "declare_retention",
    """
    insert into recon.retention (before_partition, reason, declared_by)
    values (:before_partition, :reason, :declared_by)
    """,
)
# Deletes what was verified of the months before one; later notes of changed events of such months are deleted too.
# Invariant: the caller has locked the row of recon.event_log. Aggregates and open keys stay: they show what was
# counted and what left, if a month is declared complete again.
# Binds: before_partition text
_FORGET_MONTHS = labelled(
    "forget_months_before",
    "delete from recon.usage_month where partition < :before_partition",
)
# Ends the acceptance of months before one: if they are declared complete again, they need an approval.
# Binds: before_partition text
_ACCEPT_FROM = labelled(
    "accept_from",
    "update recon.accepted_usage set first_partition = greatest(first_partition, :before_partition)",
)


@dataclass(frozen=True)
class Retention:
    """A declaration that is in force.

    Attributes:
        before_partition: The first month (`YYYY-MM`) of which the log is complete.
        reason: Why.
        declared_by: Who.
        declared_at: When.
    """

    before_partition: str
    reason: str
    declared_by: str
    declared_at: datetime

    def keeps(self, period_start: datetime) -> bool:
        """Whether the log is complete for a period that begins then."""
        return period_start >= BillingMonth.parse(self.before_partition).start

    def __str__(self) -> str:
        """For a person."""
        return (
            f"the months before {self.before_partition} are no longer in the log "
            f"(declared by {self.declared_by} on {self.declared_at:%Y-%m-%d}: {self.reason})"
        )


def read_retention(connection: Connection) -> Retention | None:
    """The declaration in force, or None."""
    row = connection.execute(_READ_RETENTION).mappings().one_or_none()
    return None if row is None else Retention(**row)


def declare(connection: Connection, before: BillingMonth, *, reason: str, declared_by: str) -> None:
    """Declare that the months before this one are no longer in the log; in a transaction.

    Waits for a run that writes aggregates, months or open keys.
    """
    row = {"before_partition": before.key, "reason": reason, "declared_by": declared_by}
    connection.execute(_DECLARE_RETENTION, row)
    await_sums(connection)
    connection.execute(_FORGET_MONTHS, {"before_partition": before.key})
    connection.execute(_ACCEPT_FROM, {"before_partition": before.key})


def first_compared(retention: Retention | None, first: BillingMonth) -> BillingMonth:
    """The first month that runs compare, of those from `first` on."""
    return first if retention is None else max(first, BillingMonth.parse(retention.before_partition))


def months_in_the_log(
    retention: Retention | None, first: BillingMonth, last: BillingMonth
) -> tuple[BillingMonth, BillingMonth]:
    """The part of a range of months that is in the log.

    Raises:
        ConfigurationError: None of it is.
    """
    if retention is None:
        return first, last
    require_in_the_log(retention, (last,))
    return first_compared(retention, first), last


def require_in_the_log(retention: Retention | None, months: tuple[BillingMonth, ...]) -> None:
    """Refuse months that are declared to be no longer in the log.

    Raises:
        ConfigurationError: One of them is.
    """
    for month in months:
        if retention is not None and month.key < retention.before_partition:
            raise ConfigurationError(
                f"The period {month.key} is not compared: {retention}.",
                fix=f"Ask for {retention.before_partition} or later. If the log has {month.key} again: "
                f'recon retention --before {month.key} --reason "...".',
            )
