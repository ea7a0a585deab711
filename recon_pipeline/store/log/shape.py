"""The shape that log, counters and subscriptions must have, and a sentence for each way in which a table differs."""

from recon_pipeline.store.log.tables import COUNTERS, EVENTS, SUBSCRIPTIONS, Table

COUNTER_KEY = ("gateway_name", "gateway_customer_id", "usage_type", "period_start", "period_end")

# By which applications mark a row as deleted and leave it where it is.
_DELETION_MARKS = ("deleted_at", "deleted_on", "deleted", "is_deleted", "voided_at", "voided_on", "voided", "is_voided")
_TEXT = ("text", "character varying")
_INSTANT = ("timestamp with time zone",)
_WHOLE = ("smallint", "integer", "bigint")
_KEY_TYPES = dict.fromkeys(COUNTER_KEY[:3], _TEXT) | dict.fromkeys(COUNTER_KEY[3:], _INSTANT)

REQUIRED_COLUMNS: dict[str, dict[str, tuple[str, ...]]] = {
    EVENTS: {
        "id": ("uuid",),
        **_KEY_TYPES,
        "request_id": _TEXT,
        "quantity": (*_WHOLE, "numeric"),
        "event_timestamp": _INSTANT,
        "created_at": _INSTANT,
    },
    COUNTERS: {
        "id": ("uuid",),
        **_KEY_TYPES,
        "usage_count": ("bigint", "integer"),
        "updated_at": _INSTANT,
    },
    SUBSCRIPTIONS: {
        "gateway_name": _TEXT,
        "gateway_customer_id": _TEXT,
        "current_period_start": _INSTANT,
        "current_period_end": _INSTANT,
    },
}


def wrong_columns(table: Table, name: str) -> tuple[str, ...]:
    """What is missing or of a type that we cannot work with, a sentence each."""
    sentences: list[str] = []
    if name == EVENTS and table.kind == "v":
        sentences.append(f"{name} is a view, in which two events with one request id cannot be distinguished")
    for column, types in REQUIRED_COLUMNS[name].items():
        found = table.types.get(column)
        if found is None:
            sentences.append(f"{name} has no column {column}")
        elif found not in types:
            sentences.append(f"{name}.{column} is {found}, not {' or '.join(types)}")
    if name == SUBSCRIPTIONS and "status" not in table.types:
        sentences.append(f"{name} has no column status")
    return tuple(sentences)


def unsound_kind(table: Table, name: str) -> tuple[str, str] | None:
    """Why the kind of log or counters cannot be used, and the fix; None if it can."""
    if name == SUBSCRIPTIONS:
        return None
    if table.foreign_part is not None:
        is_part = table.foreign_part != table.name
        named = f"{table.foreign_part} is a foreign table" + (f", and a part of {table.name}" if is_part else "")
        return (
            f"{named}: it can neither be locked nor read at one snapshot with the rest, "
            "so right counters would look wrong.",
            f"Move its rows into a table of this database, or: "
            f"alter table {table.name} detach partition {table.foreign_part};"
            if is_part
            else f"Point DATABASE_URL at the database that holds {name} itself.",
        )
    if table.kind == "m":
        return (
            f"{table.name} is a materialized view, which is as old as its last refresh.",
            f"Let search_path find the table {name} itself.",
        )
    if name == COUNTERS and table.heir is not None:
        return (
            f"Table {table.heir} inherits from {table.name} without being a partition of it: "
            "a key could have a counter in each, which no unique key forbids.",
            f"alter table {table.heir} no inherit {table.name};",
        )
    return None


def has_unique_key(table: Table, columns: frozenset[str]) -> bool:
    """Whether the table itself refuses two rows with equal values in these columns."""
    return any(key and key <= columns for key in table.unique_keys)


def deletion_marks(events: Table) -> tuple[str, ...]:
    """The columns of the log that mark an event as deleted while it stays there, by the names that applications use."""
    return tuple(name for name in _DELETION_MARKS if name in events.types)
