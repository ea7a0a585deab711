"""The keys that are compared with a meter: which are due, in which order, and what a comparison found of each.

Invariant: the log is read for the keys that are next, and again for one that differs, after its meter was asked. What
was compared is written in short transactions, so that a comparison that is killed goes on where it was.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.core.parity.classes import Difference
from recon_pipeline.core.parity.windows import Window, to_minute
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.parity.sending import Sending
from recon_pipeline.store.parity.sent import Sent, Span, sent_in
from recon_pipeline.store.parity.sharing import ALONE, Named, Shared, shared
from recon_pipeline.store.postgres.statements import labelled, statement

# Records the comparison of a key, unless another one recorded one since its log was read.
# Invariant: news stay that were marked since then, whatever the clocks of both comparisons say.
# Index: the primary key of recon.parity_key.
# Binds: compared_at timestamptz, compared_log_units numeric, compared_until timestamptz, customer text
# Binds: difference_count bigint, elsewhere_count bigint, elsewhere_units numeric, error text, event_count bigint
# Binds: gateway_name text, known_compared_at timestamptz, known_news_at timestamptz, period_end timestamptz
# Binds: period_start timestamptz, provider_customer text, provider_customer_count bigint, provider_units numeric
# Binds: usage_type text
_NOTE_COMPARED = labelled(
    "note_compared_key",
    """
    update recon.parity_key
    set
        compared_at = :compared_at,
        news_at = case when news_at is distinct from :known_news_at then news_at end,
        compared_until = :compared_until,
        compared_log_units = :compared_log_units,
        provider_customer = :provider_customer,
        provider_customer_count = :provider_customer_count,
        event_count = :event_count,
        elsewhere_count = :elsewhere_count,
        elsewhere_units = :elsewhere_units,
        provider_units = :provider_units,
        difference_count = :difference_count,
        error = :error
    where (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
        = (:gateway_name, :usage_type, :customer, :period_start, :period_end)
        and compared_at is not distinct from :known_compared_at
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
    """A key that is due, and what the log says was sent in its window.

    Attributes:
        customer: `gateway_customer_id`.
        period_start: Of the period.
        period_end: Of the period.
        window: Of the period, up to the beginning of the comparison at most.
        sent: What was sent in it, of which nothing is taken for settled.
        read_at: Before the log was read for that.
        known_news_at: The mark of its news before that; None: it had none.
        known_compared_at: Its comparison of before; None: it was never compared.
        shared: With whom it shares the provider's customer.
    """

    customer: str
    period_start: datetime
    period_end: datetime
    window: Window
    sent: Sent
    read_at: datetime
    known_news_at: datetime | None
    known_compared_at: datetime | None
    shared: Shared = ALONE

    @property
    def together(self) -> tuple[str, ...]:
        """The customers of the log whose usage the provider's customer has."""
        return self.shared.customers or (self.customer,)


@dataclass(frozen=True)
class ComparedKey:
    """What a comparison found of a key.

    Attributes:
        key: Which.
        compared_at: Before the log was read.
        log_units: What the log had.
        provider_units: What the meter had; None if it was not asked, or refused the customer.
        differences: Where they differ.
        error: Why the provider refused the customer, or None.
    """

    key: ParityKey
    compared_at: datetime
    log_units: Decimal
    provider_units: Decimal | None
    differences: tuple[Difference, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Turn:
    """Which keys are asked for.

    Attributes:
        began: The beginning of the comparison; what was compared since then is not due.
        now: Before the log is read; for how long the others have waited.
        news_come_first: Keys with news come before those that have waited for long.
        most_keys: How many.
    """

    began: datetime
    now: datetime
    news_come_first: bool
    most_keys: int


def keys_to_compare(
    connection: Connection, tables: BillingTables, sending: Sending, turn: Turn
) -> tuple[ParityKey, ...]:
    """The next keys that are due, with what was sent of each; in a decision."""
    until = to_minute(turn.began)
    rows = connection.execute(
        statement("keys_to_compare"),
        {**sending.in_log(tables), **vars(turn), "until": until, "final_after_hours": sending.metering.final_hours},
    ).all()
    if not rows:
        return ()
    spans = [Span.of_period(row.gateway_customer_id, row.period_start, row.period_end, until) for row in rows]
    sums = sent_in(connection, tables, sending, spans, settled_before=None)
    keys = [
        ParityKey(
            row.gateway_customer_id,
            row.period_start,
            row.period_end,
            one.window,
            sent if sent.provider_customer else replace(sent, provider_customer=row.provider_customer),
            turn.now,
            row.news_at,
            row.compared_at,
        )
        for row, one, sent in zip(rows, spans, sums, strict=True)
    ]
    named = [Named(key.customer, (key.period_start, key.period_end), key.sent.provider_customer) for key in keys]
    sharing = shared(connection, sending, named)
    return tuple(
        replace(key, shared=sharing.get((key.customer, (key.period_start, key.period_end)), ALONE)) for key in keys
    )


def note_compared(connection: Connection, sending: Sending, one: ComparedKey) -> None:
    """Write down what was compared, unless another comparison was faster; in a transaction."""
    key = _key(sending, one.key)
    noted = connection.execute(
        _NOTE_COMPARED,
        {
            **key,
            "compared_at": one.compared_at,
            "known_compared_at": one.key.known_compared_at,
            "known_news_at": one.key.known_news_at,
            "compared_until": one.key.window.end,
            "compared_log_units": one.log_units,
            "provider_customer": one.key.sent.provider_customer,
            "provider_customer_count": one.key.sent.provider_customer_count,
            "event_count": one.key.sent.log.event_count,
            "elsewhere_count": one.key.sent.elsewhere_count,
            "elsewhere_units": one.key.sent.elsewhere_units,
            "provider_units": one.provider_units,
            "difference_count": len(one.differences),
            "error": one.error,
        },
    )
    if not noted.rowcount:
        return
    connection.execute(_FORGET_DIFFERENCES, key)
    if one.differences:
        connection.execute(_KEEP_DIFFERENCE, [{**key, **_difference(found)} for found in one.differences])


def _key(sending: Sending, key: ParityKey) -> dict[str, Any]:
    return {
        **sending.named,
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
