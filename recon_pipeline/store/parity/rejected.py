"""The events of the log that error reports of a meter name."""

from datetime import datetime

from sqlalchemy import Connection

from recon_pipeline.core.parity.classes import NamedRejection
from recon_pipeline.store.parity.sending import Sending
from recon_pipeline.store.postgres.planning import look_up_by_index
from recon_pipeline.store.postgres.statements import labelled

# The customers and times of events of one metered usage that have one of some request ids.
# Index: one that begins with request_id or (gateway_name, request_id), where there is one; else the whole log.
# Binds: gateway_name text, request_ids text[], usage_type text
_NAMED_EVENTS = labelled(
    "events_by_request_id",
    """
    select gateway_customer_id, request_id, event_timestamp, created_at, period_start
    from billing_usage_events
    where request_id = any(:request_ids)
        and gateway_name = :gateway_name
        and usage_type = :usage_type
    """,
)


def named_events(
    connection: Connection, sending: Sending, codes: dict[str, str]
) -> dict[str, tuple[NamedRejection, ...]]:
    """The events that error reports name, by customer.

    Args:
        connection: In a decision.
        sending: Which usage, and which column is its time.
        codes: Why each identifier was refused.
    """
    found: dict[str, list[NamedRejection]] = {}
    if codes and sending.metering.sends == "each":
        look_up_by_index(connection)
        for row in connection.execute(_NAMED_EVENTS, {**sending.named, "request_ids": list(codes)}):
            sent_at: datetime | None = getattr(row, sending.metering.timestamp)
            if sent_at is None:  # it lies in no window
                continue
            found.setdefault(row.gateway_customer_id, []).append(
                NamedRejection(row.request_id, sent_at, codes[row.request_id])
            )
    return {customer: tuple(named) for customer, named in found.items()}
