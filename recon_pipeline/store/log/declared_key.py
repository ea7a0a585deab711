"""The event identity that the log's unique keys declare, beside the owner's declaration `RECON_EVENT_IDENTITY`.

Invariant: only a valid unique key of the log counts as a declaration. A key on the identity's columns, or on fewer,
keeps repetitions out. A key that needs further columns admits two events of one identity: it says that they are two,
while the identity says that they are one. Only the owner knows which of the two is right.
"""

from dataclasses import dataclass

from recon_pipeline.core.event_identity import NAMING_COLUMNS, EventIdentity, identity_of
from recon_pipeline.store.log.shape import has_unique_key
from recon_pipeline.store.log.tables import Table


@dataclass(frozen=True)
class WiderKey:
    """A unique key of the log that admits two events of the declared identity.

    Attributes:
        table: The log, as found through search_path.
        identity: As declared.
        columns: Of the key.
        is_partitioned: The log is partitioned, so its unique keys have to contain the partition columns.
    """

    table: str
    identity: EventIdentity
    columns: tuple[str, ...]
    is_partitioned: bool

    def __str__(self) -> str:
        return (
            f"{self.table} has a unique key on {', '.join(self.columns)}, which admits several events with the same "
            f"{self.identity}, and {self.identity.setting} says that these are one event"
        )

    @property
    def ways_to_declare(self) -> str:
        """How the owner declares what one event is: by the setting, or by a unique key."""
        named = identity_of(frozenset(self.columns))
        key = f"({self.identity})"
        if self.is_partitioned:
            by_key = f"give the log a unique key on {key}, which takes a log that is partitioned by no other columns."
        else:
            by_key = f"create unique index concurrently on {self.table} {key};"
        if named is None:
            return f"If they are one event: {by_key} No setting can name an event by this key."
        return f"If they are several events: set {named.setting}, then recon init. If they are one: {by_key}"


def refuses_repetitions(events: Table, identity: EventIdentity) -> bool:
    """Whether the log itself refuses a second event of one identity."""
    return has_unique_key(events, frozenset(identity.columns))


def wider_key(events: Table, identity: EventIdentity) -> WiderKey | None:
    """The unique key by which the log declares two events of one identity to be two; None if there is none."""
    if refuses_repetitions(events, identity):
        return None
    # With its own id every row is unique: such a key says nothing about the event identity.
    keys = [key for key in events.unique_keys if "request_id" in key and "id" not in key]
    if not keys:
        return None
    ordered = [tuple(sorted(key, key=_place)) for key in keys]
    columns = min(ordered, key=lambda key: (len(key), key))
    return WiderKey(events.name, identity, columns, is_partitioned=events.kind == "p")


def _place(column: str) -> tuple[int, str]:
    """Columns that may name an event come first, in their order."""
    return NAMING_COLUMNS.index(column) if column in NAMING_COLUMNS else len(NAMING_COLUMNS), column
