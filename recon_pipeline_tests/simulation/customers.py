"""Other customers: more of them than the product samples anywhere, who use something between every two statements.

They take no turns of their own, wait for nobody, and share no key with the actors; what somebody has locked against
them they do not use this time.
"""

import random
from dataclasses import dataclass

import psycopg
from psycopg import errors

from recon_pipeline_tests.reconciliation.billing import GATEWAY, JUNE, MAY, USAGE
from recon_pipeline_tests.simulation.actors import UTC, new_events
from recon_pipeline_tests.simulation.model import Added, Change, Inserted, Model
from recon_pipeline_tests.simulation.plan import TRAFFIC_CUSTOMERS

OPTIONS = f"{UTC} -c lock_timeout=1ms"
_CALLS = 6
_RECORD = """
    select record_billing_usage_event(%s, customer, %s, request_id, period_start, period_end, quantity)
    from unnest(%s::text[], %s::text[], %s::timestamptz[], %s::timestamptz[], %s::int[])
        as used (customer, request_id, period_start, period_end, quantity)
"""


@dataclass
class Customers:
    """Those who use something.

    Attributes:
        connection: Its waits for a lock end at once.
        calls: Of the recorder so far.
    """

    connection: psycopg.Connection
    model: Model
    choices: random.Random
    calls: int = 0

    def use(self) -> None:
        """Some of them call the recorder, which commits event and increment together."""
        chosen = sorted(self.choices.sample(range(TRAFFIC_CUSTOMERS), _CALLS))
        used = []
        for customer in chosen:
            self.calls += 1
            period = MAY if customer % 3 else JUNE
            used.append((f"t{customer:03d}", f"traffic-{self.calls:06d}", *period, self.choices.randint(1, 9)))
        columns = [list(column) for column in zip(*used, strict=True)]
        try:
            self.connection.execute(_RECORD, (GATEWAY, USAGE, *columns))
            changes: list[Change] = new_events(self.connection, columns[1], [])
        except (errors.LockNotAvailable, errors.DeadlockDetected):
            self.connection.rollback()
            return
        added = [Added(one.event.key, int(one.event.quantity or 0)) for one in changes if isinstance(one, Inserted)]
        self.connection.commit()
        self.model.commit([*changes, *added])
