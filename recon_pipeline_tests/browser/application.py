"""The application's side: its month, its counters that go wrong, and what the product did to them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources

import psycopg

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.demo import Story, play_the_month
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.records.migrate import upgrade
from recon_pipeline_tests.support.acceptance import accept_usages

_KEY = "gateway_name, gateway_customer_id, usage_type, period_start, period_end"

_DRIFTED_KEYS = f"""
    select count(*)
    from billing_usage_counters
    full join (select {_KEY}, sum(quantity) as event_sum from billing_usage_events group by {_KEY}) as log
        using ({_KEY})
    where coalesce(usage_count, 0) <> coalesce(event_sum, 0)
"""

_INFLATE = """
    update billing_usage_counters
    set usage_count = usage_count + 1
    where id in (
        select id from billing_usage_counters
        where date_trunc('month', period_start at time zone 'utc') = %s::date and usage_count > 0
        order by gateway_customer_id limit %s
    )
"""

_AUDIT_LOG = """
    create schema audit;
    create table audit.usage_log (id bigint generated always as identity, customer text, units int, at timestamptz)
"""
_LATE_EVENT = """
    insert into audit.usage_log (customer, units, at)
    select gateway_customer_id, 3, period_start + interval '1 hour'
    from billing_usage_counters
    where to_char(period_start at time zone 'UTC', 'YYYY-MM') = %s
    order by gateway_customer_id
    limit 4
"""

_DELETE_EVENTS = """
    with chosen as (
        select distinct on (gateway_customer_id) ctid as place, quantity
        from billing_usage_events
        where to_char(period_start at time zone 'UTC', 'YYYY-MM') = %s and quantity > 0
        order by gateway_customer_id, request_id
        limit 3
    ), deleted as (
        delete from billing_usage_events where ctid in (select place from chosen) returning quantity
    )
    select sum(quantity)::bigint from deleted
"""

_LEDGER = """
    select count(*), coalesce(sum(usage_count_after - coalesce(usage_count_before, 0)), 0)::bigint
    from recon.counter_repair
"""

_LATEST_BLOCK = """
    select error
    from recon.reconciliation_run
    where outcome = 'blocked'
    order by started_at desc
    limit 1
"""


@dataclass(frozen=True)
class Application:
    """A billing database with the product's schema in it."""

    url: str

    @classmethod
    def install(cls, url: str) -> "Application":
        """Create the application's tables and the product's in an empty database."""
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute((resources.files("recon_pipeline.store.log") / "billing_tables.sql").read_bytes())
        with BillingDatabase(url).connection(any_schema_version=True) as connection:
            upgrade(connection)
        accept_usages(url)
        return cls(url)

    def play(self) -> Story:
        """Six months of usage, and then everything that makes counters drift."""
        return play_the_month(self.url, events=3_000, customers=150, seed=7, now=datetime.now(UTC), progress=_Silent())

    def inflate(self, month: BillingMonth, at_most: int | None = None) -> int:
        """Count one unit too many on counters of a month; returns how many counters."""
        with psycopg.connect(self.url) as connection:
            return connection.execute(_INFLATE.encode(), (f"{month.key}-01", at_most)).rowcount

    def lose_events(self, month: BillingMonth) -> int:
        """Fill an audit log with four events of a month that never arrived; returns how many units they are."""
        with psycopg.connect(self.url) as connection:
            connection.execute(_AUDIT_LOG)
            return 3 * connection.execute(_LATE_EVENT, (month.key,)).rowcount

    def delete_events(self, month: BillingMonth) -> int:
        """Delete one event each of three customers; returns how many units they were."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute(_DELETE_EVENTS.encode(), (month.key,)).fetchone()
        assert row is not None
        return row[0]

    def drift_count(self) -> int:
        """How many keys differ from the log, asked by a statement of the test's own."""
        return self._row(_DRIFTED_KEYS)[0]

    def ledger(self) -> tuple[int, int]:
        """How many repairs the ledger holds, and the sum of their deltas."""
        repairs, delta = self._row(_LEDGER)
        return repairs, delta

    def usage(self) -> int:
        """The sum of all counters."""
        return self._row("select sum(usage_count)::bigint from billing_usage_counters")[0]

    def advised_config(self) -> str:
        """What the latest blocked run says is to be pasted in the UI."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute(_LATEST_BLOCK).fetchone()
        assert row is not None
        (line,) = [line for line in row[0].splitlines() if line.startswith("resources: ")]
        return line

    def _row(self, query: str) -> tuple[int, ...]:
        with psycopg.connect(self.url) as connection:
            row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row


class _Silent:
    def start(self, label: str, total: int) -> None: ...

    def advance(self, n: int) -> None: ...

    def finish(self) -> None: ...
