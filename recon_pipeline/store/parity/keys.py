"""The keys that are compared with a meter: what the log says of each, which are due, and what a comparison found.

Invariant: the log is summed once for all keys of a comparison, and again for a key that differs, after its meter was
asked. What was compared is written in short transactions, so that a comparison that is killed goes on where it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.core.parity.classes import Difference, LogFigure
from recon_pipeline.core.parity.windows import Window, edges, to_minute
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.parity.sending import Sending
from recon_pipeline.store.postgres.planning import sum_by_hash
from recon_pipeline.store.postgres.statements import labelled, statement

# Deletes the keys of an extent that have no counter any more, with what was found of them.
# Index: the primary key of recon.parity_key.
# Binds: end timestamptz, gateway_name text, noted_at timestamptz, start timestamptz, usage_type text
_FORGET_KEYS = labelled(
    "forget_parity_keys",
    """
    delete from recon.parity_key
    where gateway_name = :gateway_name
        and usage_type = :usage_type
        and period_start >= :start
        and period_start < :end
        and noted_at < :noted_at
    """,
)
# Records the comparison of a key.
# Index: the primary key of recon.parity_key.
# Binds: compared_at timestamptz, compared_log_units numeric, compared_until timestamptz, customer text
# Binds: difference_count bigint, error text, gateway_name text, period_end timestamptz, period_start timestamptz
# Binds: provider_units numeric, usage_type text
_NOTE_COMPARED = labelled(
    "note_compared_key",
    """
    update recon.parity_key
    set
        compared_at = :compared_at,
        compared_until = :compared_until,
        compared_log_units = :compared_log_units,
        provider_units = :provider_units,
        difference_count = :difference_count,
        error = :error
    where (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
        = (:gateway_name, :usage_type, :customer, :period_start, :period_end)
    """,
)
# Deletes what the comparison before found of a key.
# Index: recon.parity_difference by key.
# Binds: customer text, gateway_name text, period_end timestamptz, period_start timestamptz, usage_type text
_FORGET_DIFFERENCES = labelled(
    "forget_differences",
    """
    delete from recon.parity_difference
    where (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
        = (:gateway_name, :usage_type, :customer, :period_start, :period_end)
    """,
)
# Keeps a difference of a key that is to be compared.
# Index: the primary key of recon.parity_key.
# Binds: customer text, difference_kind text, evidence text, gateway_name text, log_units numeric
# Binds: period_end timestamptz, period_start timestamptz, provider_units numeric, usage_type text
# Binds: window_end timestamptz, window_start timestamptz
_KEEP_DIFFERENCE = labelled(
    "keep_parity_difference",
    """
    insert into recon.parity_difference (
        gateway_name, usage_type, gateway_customer_id, period_start, period_end,
        window_start, window_end, kind, log_units, provider_units, evidence
    )
    select
        gateway_name, usage_type, gateway_customer_id, period_start, period_end,
        :window_start, :window_end, :difference_kind, :log_units, :provider_units, :evidence
    from recon.parity_key
    where gateway_name = :gateway_name
        and usage_type = :usage_type
        and gateway_customer_id = :customer
        and period_start = :period_start
        and period_end = :period_end
    """,
)


@dataclass(frozen=True)
class ParityKey:
    """A key that is due, as the log was summed for it.

    Attributes:
        customer: `gateway_customer_id`.
        period_start: Of the period.
        period_end: Of the period.
        provider_customer: The provider's customer, if it is another one; None if its events name none.
        provider_customer_count: How many of them its events name; 2 for several.
        log_units: What was sent in its window.
        settled_units: The same without what is younger than the lag.
    """

    customer: str
    period_start: datetime
    period_end: datetime
    provider_customer: str | None
    provider_customer_count: int
    log_units: Decimal
    settled_units: Decimal

    def window(self, until: datetime) -> Window:
        """The window of its period, up to an instant at most."""
        return Window(to_minute(self.period_start), min(to_minute(self.period_end), until))


@dataclass(frozen=True)
class ComparedKey:
    """What a comparison found of a key.

    Attributes:
        key: Which.
        compared_at: When.
        window: Which time of it.
        log_units: What the log had.
        provider_units: What the meter had; None if it was not asked, or refused the customer.
        differences: Where they differ.
        error: Why the provider refused the customer, or None.
    """

    key: ParityKey
    compared_at: datetime
    window: Window
    log_units: Decimal
    provider_units: Decimal | None
    differences: tuple[Difference, ...] = ()
    error: str | None = None


def note_keys(
    connection: Connection,
    tables: BillingTables,
    sending: Sending,
    *,
    noted_at: datetime,
    until: datetime,
    settled_before: datetime,
) -> int:
    """Sum the log for every key of the extent; in a decision. Returns how many there are."""
    sum_by_hash(connection)
    parameters = sending.parameters(tables, settled_before=settled_before)
    count = connection.execute(
        statement("note_parity_keys", tables.parts), {**parameters, "noted_at": noted_at, "until": until}
    ).rowcount
    connection.execute(_FORGET_KEYS, {**sending.key, "noted_at": noted_at})
    return count


def keys_to_compare(
    connection: Connection, sending: Sending, *, noted_at: datetime, now: datetime, most_keys: int
) -> tuple[ParityKey, ...]:
    """The next keys that are due; in a transaction."""
    rows = connection.execute(
        statement("keys_to_compare"),
        {
            **sending.key,
            "noted_at": noted_at,
            "now": now,
            "final_after_hours": sending.metering.final_hours,
            "most_keys": most_keys,
        },
    )
    return tuple(ParityKey(*row) for row in rows)


def sent_in(
    connection: Connection,
    tables: BillingTables,
    sending: Sending,
    customer: str,
    windows: Sequence[Window],
    *,
    settled_before: datetime,
) -> tuple[LogFigure, ...]:
    """What the log says was sent of a customer's usage in windows that do not overlap, in order; in a decision."""
    instants = edges(windows)
    rows = connection.execute(
        statement("sent_in_windows", tables.parts),
        {**sending.parameters(tables, settled_before=settled_before), "customer": customer, "edges": instants},
    )
    found = {row.number: LogFigure(row.units, row.settled_units, row.event_count) for row in rows}
    nothing = LogFigure(Decimal(0), Decimal(0), 0)
    return tuple(found.get(instants.index(window.start) + 1, nothing) for window in windows)


def note_compared(connection: Connection, sending: Sending, one: ComparedKey) -> None:
    """Write down what was compared; in a transaction."""
    key = _key(sending, one.key)
    connection.execute(
        _NOTE_COMPARED,
        {
            **key,
            "compared_at": one.compared_at,
            "compared_until": one.window.end,
            "compared_log_units": one.log_units,
            "provider_units": one.provider_units,
            "difference_count": len(one.differences),
            "error": one.error,
        },
    )
    connection.execute(_FORGET_DIFFERENCES, key)
    if one.differences:
        connection.execute(_KEEP_DIFFERENCE, [{**key, **_difference(found)} for found in one.differences])


def _key(sending: Sending, key: ParityKey) -> dict[str, Any]:
    return {
        "gateway_name": sending.usage.gateway_name,
        "usage_type": sending.usage.usage_type,
        "customer": key.customer,
        "period_start": key.period_start,
        "period_end": key.period_end,
    }


def _difference(found: Difference) -> dict[str, Any]:
    return {
        "window_start": found.compared.window.start,
        "window_end": found.compared.window.end,
        "difference_kind": str(found.kind),
        "log_units": found.compared.log.units,
        "provider_units": found.compared.reported,
        "evidence": found.evidence,
    }
