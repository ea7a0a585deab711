"""What the log says was sent to a meter, by the timestamps as sent: of a key's window, or of parts of it.

Invariant: read in one statement, whose cost is that of these customers' events within these windows, whatever else the
log has and whatever the planner knows of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Self

from sqlalchemy import Connection

from recon_pipeline.core.parity.classes import LogFigure
from recon_pipeline.core.parity.windows import Window, to_minute
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.parity.sending import Sending
from recon_pipeline.store.postgres.planning import join_by_hash, look_up_by_index, sum_by_hash
from recon_pipeline.store.postgres.statements import statement


@dataclass(frozen=True)
class Span:
    """A window of a customer's time that is summed.

    Attributes:
        customer: `gateway_customer_id`.
        window: Which time.
        provider_customer: Events that name another one are not summed; None: whichever they name.
    """

    customer: str
    window: Window
    provider_customer: str | None = None

    @classmethod
    def of_period(cls, customer: str, period_start: datetime, period_end: datetime, until: datetime) -> Self:
        """The window of a period, up to an instant at most."""
        window = Window(to_minute(period_start), min(to_minute(period_end), until))
        return cls(customer, window)


@dataclass(frozen=True)
class Sent:
    """What the log says was sent within a window.

    Attributes:
        log: The figures.
        provider_customer: The provider's customer, if it is another one; None if the events name none.
        provider_customer_count: How many of them the events name; 2 for several.
        elsewhere_count: Events whose time does not lie in the period of their label.
        elsewhere_units: Their units.
    """

    log: LogFigure
    provider_customer: str | None = None
    provider_customer_count: int = 0
    elsewhere_count: int = 0
    elsewhere_units: Decimal = Decimal(0)


NOTHING = Sent(LogFigure(Decimal(0), Decimal(0), 0))


def sent_in(
    connection: Connection,
    tables: BillingTables,
    sending: Sending,
    spans: Sequence[Span],
    *,
    settled_before: datetime | None,
) -> tuple[Sent, ...]:
    """What was sent in each of some windows, at least one, which may overlap; in a decision.

    Args:
        connection: In a decision.
        tables: How the tables are shaped.
        sending: The usage, and how it is sent.
        spans: The windows.
        settled_before: What is younger is not settled; None: nothing is.
    """
    sum_by_hash(connection)
    look_up_by_index(connection)
    join_by_hash(connection)
    rows = connection.execute(
        statement("sent_in_windows", tables.parts),
        {
            **sending.parameters(tables, settled_before=settled_before),
            "customers": [one.customer for one in spans],
            "each_customer": sorted({one.customer for one in spans}),
            "provider_customers": [one.provider_customer for one in spans],
            "window_starts": [one.window.start for one in spans],
            "window_ends": [one.window.end for one in spans],
            # A sum is stamped at the start or at the end of what it is of.
            "earliest": min(one.window.start for one in spans) - sending.sum_length,
            "latest": max(one.window.end for one in spans) + sending.sum_length,
        },
    )
    found = {
        row.number: Sent(
            log=LogFigure(row.units, row.settled_units, row.event_count),
            provider_customer=row.provider_customer,
            provider_customer_count=row.provider_customer_count,
            elsewhere_count=row.elsewhere_count,
            elsewhere_units=row.elsewhere_units,
        )
        for row in rows
    }
    return tuple(found.get(number, NOTHING) for number in range(1, len(spans) + 1))
