"""One Ibis expression for event sums: the valid events, each identity counted once, by key; the same on every engine.

    events ─┬─▶ identities that may be there twice, by a hash
            ├─▶ plain events: valid, odd in nothing, of no such identity ─▶ number and sum by key ─┐
            └─▶ all others, few ─▶ the first of each identity ─▶ all that is known by key ─────────┴─▶ event sums

Invariant: it counts what `key_sums_deduplicated.sql` counts in Postgres. Of the events of one identity the first to
arrive counts, in whichever order files are read. Twins in other months are not known here.
"""

import functools
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from recon_pipeline.core.event_identity import EventIdentity
from recon_pipeline.lake.engine import Engine
from recon_pipeline.lake.exact import Exact, added_up, exact

if TYPE_CHECKING:
    import ibis.expr.types as ir

KEY = ("gateway_customer_id", "period_start", "period_end")
COUNTS = ("event_count", "invalid_count", "dedupe_count", "negative_count", "outside_period_count", "unread_count")
ARRIVAL = ("ingest_xid", "created_at", "id")
"""The columns that say which event arrived first; those of them that a table has."""

_KEY_COLUMNS = ("key_customer", "key_start", "key_end")
_TIES = ("event_timestamp", *KEY, "quantity")
_LONGEST_NUMBER = 38
_WHOLE_NUMBER = rf"\A[0-9]{{1,{_LONGEST_NUMBER}}}\z"
_LONGEST_NAME_BYTES = 1_000  # as recon.fits_index has it


@dataclass(frozen=True)
class EventSums:
    """Event sums by key, as an expression that is not run yet.

    Attributes:
        table: `KEY`, `COUNTS`, and of each piece `usage_N` and `credit_N`, null for 0. An event whose key cannot be
            kept is invalid, and counted under the empty name. Where `unread_count` is not 0, no sum of that key is
            right: so many of its quantities are texts that are no number.
        powers: By which power of ten each piece is multiplied before all are added.
    """

    table: "ir.Table"
    powers: tuple[int, ...]

    def usage(self, row: Mapping[str, Any]) -> Decimal:
        """The event sum in a row of the table."""
        return added_up([row[f"usage_{index}"] for index in range(len(self.powers))], self.powers)

    def credit(self, row: Mapping[str, Any]) -> Decimal:
        """What the events of negative quantity add up to, in a row of the table."""
        return added_up([row[f"credit_{index}"] for index in range(len(self.powers))], self.powers)


def event_sums(engine: Engine, events: Any, identity: EventIdentity | None) -> EventSums:
    """The event sums of a table of events; which identities may be there twice is searched before this returns.

    Args:
        engine: Whose table it is.
        events: Columns as of `billing_usage_events`; `quantity` is a whole number, a decimal, or a number as text.
            Where no column of `ARRIVAL` decides which event came first, time, key and quantity do.
        identity: What names an event; a column of it that the table has not is the same for all. None: the table has
            no event twice.

    Raises:
        ReconError: The engine ran out of memory, or cannot read a file.
    """
    found, quantity = _with_facts(engine, events)
    plain, others = _apart(engine, found, identity)
    others = others.mutate(is_counted=others.is_valid & _is_first(others, identity))
    others = others.mutate(is_credit=others.is_counted & others.is_negative)
    # An engine holds all groups at once: those of plain events have no column that would be 0 in each.
    sums = plain.group_by(_KEY_COLUMNS).agg(event_count=plain.count(), **_sums(plain, "usage"))
    of_others = others.group_by(_KEY_COLUMNS).agg(
        event_count=others.count(where=others.is_counted),
        invalid_count=others.count(where=~others.is_valid),
        dedupe_count=others.count(where=others.is_valid & ~others.is_counted),
        negative_count=others.count(where=others.is_credit),
        outside_period_count=others.count(where=others.is_outside),
        unread_count=others.count(where=others.is_unread),
        **_sums(others, "usage", others.is_counted),
        **_sums(others, "credit", others.is_credit),
    )
    return EventSums(_together(sums, of_others), quantity.powers)


def _with_facts(engine: Engine, events: Any) -> tuple[Any, Exact]:
    """The events, each with the key that it is counted under, its pieces, and what decides how it counts."""
    quantity = exact(events.quantity)
    has_key = engine.octets(events.gateway_customer_id) <= _LONGEST_NAME_BYTES
    is_valid = quantity.is_finite & has_key & (events.period_end > events.period_start)
    is_outside = (events.event_timestamp < events.period_start) | (events.event_timestamp >= events.period_end)
    found = events.mutate(
        key_customer=(has_key & events.period_end.notnull()).fill_null(False).ifelse(events.gateway_customer_id, ""),
        key_start=events.period_start,
        key_end=events.period_end.coalesce(events.period_start),
        is_valid=is_valid.fill_null(False),
        is_negative=quantity.is_negative.fill_null(False),
        is_outside=is_outside.fill_null(False),
        is_unread=quantity.is_unread.fill_null(False),
        **{f"piece_{index}": piece for index, piece in enumerate(quantity.pieces)},
    )
    return found, quantity


def _apart(engine: Engine, found: Any, identity: EventIdentity | None) -> tuple[Any, Any]:
    """The plain events, and all others: those that are odd, and those that share the hash of their identity.

    To sort all events by identity would cost more than all else.
    """
    import ibis  # noqa: PLC0415 - an extra

    is_odd = ~found.is_valid | found.is_negative | found.is_outside | found.is_unread
    if identity is None:
        return found.filter(~is_odd), found.filter(is_odd)
    texts: list[Any] = [ibis.literal(""), *(found[name].cast("string") for name in _names(found, identity))]
    identity_hash = engine.hashed(functools.reduce(lambda left, right: left + "\n" + right, texts))
    hashed: Any = engine.view(found.mutate(is_odd=is_odd, identity_hash=identity_hash))
    named = hashed.filter(~_has_no_name(hashed, identity))
    shared = engine.repeated(named.select(shared="identity_hash"))
    is_shared = hashed.identity_hash == shared.shared
    either: Any = hashed.left_join(shared, is_shared)
    return (
        hashed.filter(~hashed.is_odd).anti_join(shared, is_shared),
        either.filter(either.is_odd | either.shared.notnull()),
    )


def _is_first(events: Any, identity: EventIdentity | None) -> Any:
    """Whether an event is the first of its identity; one of which a part of the identity is null has no twin."""
    import ibis  # noqa: PLC0415 - an extra

    if identity is None:
        return ibis.literal(True)
    arrival = [_in_order(events[name]) for name in ARRIVAL if name in events.columns]
    order = [one.asc(nulls_first=True) for one in (*arrival, *(events[name] for name in _TIES))]
    place = ibis.row_number().over(group_by=[*_names(events, identity), "is_valid"], order_by=order)
    return (place == 0) | _has_no_name(events, identity)


def _in_order(column: Any) -> Any:
    """A column by which events are ordered: whole numbers as text, as archives have `ingest_xid`, as numbers."""
    if not column.type().is_string():
        return column
    return column.re_search(_WHOLE_NUMBER).ifelse(column.lpad(_LONGEST_NUMBER, "0"), column)


def _has_no_name(events: Any, identity: EventIdentity) -> Any:
    import ibis  # noqa: PLC0415 - an extra

    return ibis.or_(*(events[name].isnull() for name in _names(events, identity)))


def _names(events: Any, identity: EventIdentity) -> list[str]:
    return [name for name in identity.columns if name in events.columns]


def _sums(events: Any, of: str, where: Any = None) -> dict[str, Any]:
    """The sum of each piece."""
    pieces = [name for name in events.columns if name.startswith("piece_")]
    # Cast to what it is: Ibis takes each sum of decimals for one of two digits after the point.
    return {name.replace("piece", of): events[name].sum(where=where).cast(events[name].type()) for name in pieces}


def _together(plain: Any, others: Any) -> "ir.Table":
    """The sums of both, by key."""
    joined: Any = plain.outer_join(others, _KEY_COLUMNS)

    def both(name: str) -> Any:
        here: list[Any] = [joined[side].fill_null(0) for side in (name, f"{name}_right") if side in joined.columns]
        return functools.reduce(operator.add, here).cast(others[name].type())

    key = {
        name: joined[column].coalesce(joined[f"{column}_right"]) for name, column in zip(KEY, _KEY_COLUMNS, strict=True)
    }
    return joined.select(**key, **{name: both(name) for name in others.columns if name not in _KEY_COLUMNS})
