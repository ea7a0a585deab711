"""Events of the log whose period begins in no known month, so that no run covers them."""

from dataclasses import dataclass

from sqlalchemy import Connection

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.postgres.planning import look_up_by_index, plan_as_usual
from recon_pipeline.store.postgres.statements import statement
from recon_pipeline.store.sums.modes import Mode
from recon_pipeline.store.sums.quality import OddEvent
from recon_pipeline.store.sums.run import Reconciliation

MOST_BEYOND = 1_000
"""Events outside of the known months that a tick looks at, of each kind: a log may be much older than the first one."""


@dataclass(frozen=True)
class BeyondMonths:
    """Events that no run covers, since their period begins in no known month.

    Attributes:
        earlier_count: Before the first one.
        later_count: After the last one, or at infinity.
        never_count: Without a period_start.
        is_exact: The counts are exact; else there are at least so many.
        sample: A few of them for each metered usage.
    """

    earlier_count: int
    later_count: int
    never_count: int
    is_exact: bool
    sample: tuple[OddEvent, ...]

    @property
    def event_count(self) -> int:
        """All of them."""
        return self.earlier_count + self.later_count + self.never_count


def find_events_beyond(
    connection: Connection,
    run: Reconciliation,
    tables: BillingTables,
    *,
    first: BillingMonth,
    last: BillingMonth,
    mode: Mode,
) -> BeyondMonths | None:
    """The events of the run's scope that lie in no known month, of any customer; None if it is too costly for a tick.

    Args:
        connection: In a transaction.
        run: Whose scope is checked.
        tables: How the tables are shaped.
        first: The first known month.
        last: The last one.
        mode: Whether the run reads all of the log: then all of them are counted.
    """
    if mode is Mode.INCREMENTAL and not tables.finds_periods:
        return None
    counts, sample, is_exact = [0, 0, 0], list[OddEvent](), True
    for usage in run.extent.scope:
        asked = run.parameters(usage, tables) | {"first_start": first.start, "last_end": last.end}
        if mode is Mode.FULL:
            plan_as_usual(connection)
        else:
            look_up_by_index(connection)
        rows = connection.execute(statement("sample_beyond_months"), asked | {"most": MOST_BEYOND}).mappings().all()
        sample += [OddEvent.of(row) for row in rows if row["event_id"] is not None]
        found = rows[0]
        if mode is Mode.FULL:
            found = connection.execute(statement("count_beyond_months"), asked).mappings().one()
        else:
            is_exact = is_exact and found["is_all"]
        counts = [
            count + found[name]
            for count, name in zip(counts, ("earlier_count", "later_count", "never_count"), strict=True)
        ]
    return BeyondMonths(*counts, is_exact=is_exact, sample=tuple(sample))
