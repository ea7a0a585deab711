"""One Ibis expression for event sums: the valid events, each identity counted once, by key; the same on every engine.

Invariant: it counts what `key_sums_deduplicated.sql` counts in Postgres. Of the events of one identity the first to
arrive counts, in whichever order files are read. Twins in other months are not known here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from recon_pipeline.core.event_identity import EventIdentity
from recon_pipeline.lake.engine import Engine
from recon_pipeline.lake.exact import added_up, exact

if TYPE_CHECKING:
    import ibis.expr.types as ir

KEY = ("gateway_customer_id", "period_start", "period_end")
COUNTS = ("event_count", "invalid_count", "dedupe_count", "negative_count", "outside_period_count", "unread_count")
ARRIVAL = ("ingest_xid", "created_at", "id")
"""The columns that say which event arrived first; those of them that a table has."""

_TIES = ("event_timestamp", *KEY, "quantity")
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


def with_facts(engine: Engine, events: Any, identity: EventIdentity | None) -> "ir.Table":
    """The events, each with what decides whether it counts: `is_valid` and `is_counted`.

    Args:
        engine: Whose table it is.
        events: Columns as of `billing_usage_events`; `quantity` is a whole number, a decimal, or a number as text.
            Where no column of `ARRIVAL` decides which event came first, time, key and quantity do.
        identity: What names an event; a column of it that the table has not is the same for all. None: the table has
            no event twice.
    """
    quantity = exact(events.quantity)
    has_key = engine.octets(events.gateway_customer_id) <= _LONGEST_NAME_BYTES
    is_valid = quantity.is_finite & has_key & (events.period_end > events.period_start)
    found: Any = events.mutate(is_valid=is_valid.fill_null(False))
    return found.mutate(is_counted=found.is_valid & _is_first(found, identity))


def event_sums(engine: Engine, events: Any, identity: EventIdentity | None) -> EventSums:
    """The event sums of a table of events; the arguments are as those of `with_facts`."""
    found: Any = with_facts(engine, events, identity)
    quantity = exact(found.quantity)
    has_key: Any = engine.octets(found.gateway_customer_id) <= _LONGEST_NAME_BYTES
    pieces = {f"piece_{index}": piece for index, piece in enumerate(quantity.pieces)}
    found = found.select(
        "is_valid",
        "is_counted",
        "period_start",
        gateway_customer_id=(has_key & found.period_end.notnull())
        .fill_null(False)
        .ifelse(found.gateway_customer_id, ""),
        period_end=found.period_end.coalesce(found.period_start),
        is_credit=found.is_counted & quantity.is_negative,
        is_outside=(
            (found.event_timestamp < found.period_start) | (found.event_timestamp >= found.period_end)
        ).fill_null(False),
        is_unread=quantity.is_unread,
        **pieces,
    )
    sums: dict[str, Any] = {}
    for index, name in enumerate(pieces):
        # Cast to what it is: Ibis takes each sum of decimals for one of two digits after the point.
        kind = found[name].type()
        sums[f"usage_{index}"] = found[name].sum(where=found.is_counted).cast(kind)
        sums[f"credit_{index}"] = found[name].sum(where=found.is_credit).cast(kind)
    table = found.group_by(KEY).agg(
        event_count=found.count(where=found.is_counted),
        invalid_count=found.count(where=~found.is_valid),
        dedupe_count=found.count(where=found.is_valid & ~found.is_counted),
        negative_count=found.count(where=found.is_credit),
        outside_period_count=found.count(where=found.is_outside),
        unread_count=found.count(where=found.is_unread),
        **sums,
    )
    return EventSums(table, quantity.powers)


def _is_first(events: Any, identity: EventIdentity | None) -> Any:
    """Whether an event is the first of its identity; one of which a part of the identity is null has no twin."""
    import ibis  # noqa: PLC0415 - an extra

    if identity is None:
        return ibis.literal(True)
    arrival = [name for name in ARRIVAL if name in events.columns]
    order = [events[name].asc(nulls_first=True) for name in (*arrival, *_TIES)]
    named_by = [name for name in identity.columns if name in events.columns]
    place = ibis.row_number().over(group_by=[*named_by, "is_valid"], order_by=order)
    has_no_name = ibis.or_(*(events[name].isnull() for name in named_by))
    return (place == 0) | has_no_name
