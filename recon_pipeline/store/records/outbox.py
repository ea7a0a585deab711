"""The outbox of alerts in schema `recon`: which message is due for which target, and its delivery.

Invariant: a message stays due for a target until the target has accepted it. A target may get a message twice (if we
die before recording that it accepted the message), but never none.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection

from recon_pipeline.core.alert_targets import AlertTarget
from recon_pipeline.core.alerts import Message, Severity
from recon_pipeline.store.postgres.statements import labelled, statement

# The messages that are not delivered, by target, with the last error.
# Index: recon.alert_delivery, those that are not delivered.
_READ_UNDELIVERED = labelled(
    "read_undelivered",
    """
    select
        target_name,
        count(*) as messages,
        min(alert.noticed_at) as oldest_noticed_at,
        (array_agg(delivery.error order by delivery.attempts desc))[1] as error
    from recon.alert_delivery as delivery
    join recon.alert_outbox as alert on alert.id = delivery.alert_id
    where delivery.delivered_at is null
    group by target_name
    order by target_name
    """,
)
# Records that a message was delivered to a target.
# Binds: alert_id bigint, target text
_NOTE_DELIVERED = labelled(
    "note_delivered",
    """
    update recon.alert_delivery
    set delivered_at = clock_timestamp(), error = null
    where alert_id = :alert_id and target = :target
    """,
)
# Whether a message is due for a target now: a new one, or one whose wait is over.
# Binds: target text
_IS_TARGET_DUE = labelled(
    "is_target_due",
    """
    select exists (
        select from recon.alert_delivery
        where target = :target
            and delivered_at is null
            and next_attempt_at <= clock_timestamp()
    )
    """,
)
# Messages that were delivered to every target, or had no target, and are old.
# Binds: days integer
_DELETE_OLD_ALERTS = labelled(
    "delete_old_alerts",
    """
    delete from recon.alert_outbox as alert
    where alert.noticed_at < clock_timestamp() - make_interval(days => :days)
        and not exists (
            select from recon.alert_delivery as delivery
            where delivery.alert_id = alert.id and delivery.delivered_at is null
        )
    """,
)
# Records that a message was not delivered: its target is skipped, each time for twice as long as before, up to a bound.
# Invariant: all messages of the target wait for the oldest, so that they arrive in their order.
# Binds: alert_id bigint, error text, first_seconds double precision, longest_seconds double precision, target text
_NOTE_UNDELIVERED = labelled(
    "note_undelivered",
    """
    update recon.alert_delivery as waiting
    set
        error = case when waiting.alert_id = :alert_id then :error else waiting.error end,
        claimed_until = case when waiting.alert_id = :alert_id then null else waiting.claimed_until end,
        next_attempt_at = clock_timestamp() + make_interval(
            secs => least(:first_seconds * 2 ^ least(tried.attempts - 1, 20), :longest_seconds) * (0.75 + random() / 4)
        )
    from recon.alert_delivery as tried
    where tried.alert_id = :alert_id
        and tried.target = :target
        and waiting.target = tried.target
        and waiting.delivered_at is null
    """,
)


LEASE_SECONDS = 120
"""Longer than any attempt may take; what was being sent by a process that died is sent again after this."""

FIRST_RETRY_SECONDS = 25
LONGEST_RETRY_SECONDS = 300
"""A target that was away for an hour has everything within five minutes of its return."""


@dataclass(frozen=True)
class Claimed:
    """A message that a target has not got, and that is ours to send for a while."""

    alert_id: int
    message: Message


@dataclass(frozen=True)
class Undelivered:
    """The messages that one target has not received.

    Attributes:
        target_name: For people.
        messages: How many.
        oldest_noticed_at: Of them.
        error: Of the last attempt, or None before the first.
    """

    target_name: str
    messages: int
    oldest_noticed_at: datetime
    error: str | None

    @property
    def why(self) -> str:
        """For people."""
        return self.error or "not tried yet"


def redirect(connection: Connection, targets: Sequence[AlertTarget]) -> None:
    """Redirect messages from addresses that are gone to those that exist; without any, the messages stay due."""
    if not targets:
        return
    pairs = [(target, severity) for target in targets for severity in target.severities]
    connection.execute(
        statement("redirect_alerts"),
        {
            "targets": [target.fingerprint for target, _ in pairs],
            "target_names": [target.name for target, _ in pairs],
            "severities": [severity.value for _, severity in pairs],
        },
    )


def is_due(connection: Connection, target: AlertTarget) -> bool:
    """Whether a message is due for the target now; false while the target is skipped."""
    return connection.execute(_IS_TARGET_DUE, {"target": target.fingerprint}).scalar_one()


def claim(connection: Connection, target: AlertTarget, *, after: int) -> Claimed | None:
    """The oldest message after that one which the target has not received; None if there is none."""
    parameters = {"target": target.fingerprint, "after": after, "lease_seconds": LEASE_SECONDS}
    row = connection.execute(statement("claim_delivery"), parameters).one_or_none()
    if row is None:
        return None
    message = Message(
        Severity(row.severity), row.is_resolved, row.title, row.body, tuple(row.failing), tuple(row.resolved)
    )
    return Claimed(row.alert_id, message)


def note_delivered(connection: Connection, claimed: Claimed, target: AlertTarget) -> None:
    """The target has accepted the message."""
    connection.execute(_NOTE_DELIVERED, {"alert_id": claimed.alert_id, "target": target.fingerprint})


def note_undelivered(connection: Connection, claimed: Claimed, target: AlertTarget, error: str) -> None:
    """The target has not accepted the message, and is skipped for a while."""
    connection.execute(
        _NOTE_UNDELIVERED,
        {
            "alert_id": claimed.alert_id,
            "target": target.fingerprint,
            "error": error,
            "first_seconds": FIRST_RETRY_SECONDS,
            "longest_seconds": LONGEST_RETRY_SECONDS,
        },
    )


def undelivered(connection: Connection) -> tuple[Undelivered, ...]:
    """What is not delivered yet, by target."""
    return tuple(Undelivered(**row) for row in connection.execute(_READ_UNDELIVERED).mappings())


def delete_old(connection: Connection, *, days: int) -> int:
    """Forget messages that are older than this and not due; returns how many."""
    return connection.execute(_DELETE_OLD_ALERTS, {"days": days}).rowcount


def put_in_outbox(connection: Connection, message: Message, targets: Sequence[AlertTarget]) -> None:
    """Make a message due for those targets that want its severity."""
    addressed = [target for target in targets if message.severity in target.severities]
    connection.execute(
        statement("add_alert"),
        {
            **asdict(message),
            "failing": list(message.failing),
            "resolved": list(message.resolved),
            "targets": [target.fingerprint for target in addressed],
            "target_names": [target.name for target in addressed],
        },
    )
