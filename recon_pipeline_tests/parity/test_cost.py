"""What a comparison reads of the log: what has changed and what it compares, whatever the planner's statistics say."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from recon_pipeline.core.parity.windows import Window
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.demo.fake_stripe import fake_stripe
from recon_pipeline.store.log.decision import decision
from recon_pipeline.store.parity.sent import Span, sent_in
from recon_pipeline.store.postgres.statements import name_of
from recon_pipeline_tests.parity.comparing import Application
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.reconciliation.conftest import MakeBilling
from recon_pipeline_tests.reconciliation.test_cost_under_lock import all_nodes

NOON = datetime(2025, 5, 20, 12, 30, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
CUSTOMERS, EARLIER, IN_MAY = 100, 30_000, 4_000
FILL = """
    insert into billing_usage_events (
        gateway_name, gateway_customer_id, usage_type, request_id, period_start, period_end, event_timestamp, created_at
    )
    select
        'stripe', 'customer-' || mod(n, %s), 'remote_commands', gen_random_uuid()::text,
        month at time zone 'UTC', (month + interval '1 month') at time zone 'UTC', at, at
    from (
        select n, cast(%s as timestamptz) + make_interval(secs => n * %s) as at from generate_series(1, %s) as n
    ) as used
    cross join lateral date_trunc('month', at at time zone 'UTC') as month
"""
COUNT = """
    insert into billing_usage_counters (
        gateway_name, gateway_customer_id, usage_type, period_start, period_end, usage_count
    )
    select gateway_name, gateway_customer_id, usage_type, period_start, period_end, sum(quantity)
    from billing_usage_events
    group by 1, 2, 3, 4, 5
"""
STATISTICS = pytest.mark.parametrize("statistics", ["fresh", "of an empty log", "none"])


@contextmanager
def filled(billing: Billing, statistics: str) -> Iterator[Application]:
    """A log of five months; Stripe has what was sent in the last of them."""
    with fake_stripe(NOON) as stripe:
        for table in ("billing_usage_events", "billing_usage_counters"):
            billing.query(f"alter table {table} set (autovacuum_enabled = off)")
        if statistics == "of an empty log":
            billing.query("analyze")
        seconds = 119 * 86_400 / EARLIER
        billing.query(FILL, CUSTOMERS, datetime(2025, 1, 1, tzinfo=UTC), seconds, EARLIER)
        billing.query(FILL, CUSTOMERS, datetime(2025, 5, 1, tzinfo=UTC), 19 * 86_400 / IN_MAY, IN_MAY)
        billing.query(COUNT)
        if statistics == "fresh":
            billing.query("analyze")
        for number in range(CUSTOMERS):
            stripe.send(f"customer-{number}", IN_MAY // CUSTOMERS, NOON, f"sum-{number}")
        yield Application(billing, stripe)


class Read:
    """How many blocks of the log each statement of a pass reads, by name: each is explained, and then run."""

    def __init__(self, engine: Engine) -> None:
        self.blocks: dict[str, int] = {}
        self.whole: set[str] = set()
        event.listen(engine, "before_cursor_execute", self._explain)

    def _explain(self, _: Any, cursor: Any, text: str, parameters: Any, *rest: Any) -> None:
        name = name_of(text)
        if name is None or text.partition("*/")[2].split()[0] not in ("select", "with", "update", "insert", "delete"):
            return
        cursor.execute("explain (analyze, buffers, timing off, format json) " + text, parameters)
        for node in all_nodes(cursor.fetchone()[0][0]["Plan"]):
            if node.get("Relation Name") == "billing_usage_events" and "Scan" in node["Node Type"]:
                read = node["Shared Hit Blocks"] + node["Shared Read Blocks"]
                self.blocks[name] = self.blocks.get(name, 0) + read
                self.whole |= {name} if node["Node Type"] == "Seq Scan" else set()


@STATISTICS
def test_a_pass_without_news_reads_nothing_of_the_log_and_one_with_news_what_has_news(
    make_incremental_billing: MakeBilling, statistics: str
) -> None:
    with filled(make_incremental_billing(), statistics) as app:
        first = app.comparison(NOON + HOUR)
        of_first = Read(first.database.engine)
        assert (first.run().compared, app.found()) == (CUSTOMERS, [])

        idle = app.comparison(NOON + 2 * HOUR)
        of_idle = Read(idle.database.engine)
        assert idle.run().compared == 0

        for number in range(3):
            app.use(f"customer-{number}", 5, NOON + 2 * HOUR)
        busy = app.comparison(NOON + 3 * HOUR)
        of_busy = Read(busy.database.engine)
        assert busy.run().compared == 3

    assert of_first.whole | of_idle.whole | of_busy.whole == set()
    assert set(of_first.blocks) == {"sent_in_windows"}
    assert of_first.blocks["sent_in_windows"] < 1.2 * IN_MAY, "nothing of earlier months"
    assert sum(of_idle.blocks.values()) < 10, of_idle.blocks
    assert sum(of_busy.blocks.values()) < 2 * 3 * IN_MAY / CUSTOMERS, of_busy.blocks


@STATISTICS
def test_a_customer_whose_labels_lie_between_several_edges_is_read_twice_however_many_they_are(
    make_incremental_billing: MakeBilling, statistics: str
) -> None:
    months = [BillingMonth(2025, number) for number in range(1, 5)]
    parts = [(month.start, month.start + 10 * DAY, month.end) for month in months]
    spans = [Span("customer-1", Window(*edges)) for part in parts for edges in itertools.pairwise(part)]
    with filled(make_incremental_billing(), statistics) as app:
        one = app.comparison(NOON + HOUR)
        read = Read(one.database.engine)
        with one.database.connection() as connection, decision(connection) as tables:
            sent = sent_in(connection, tables, one.sending, spans, settled_before=None)
    of_customer = EARLIER / CUSTOMERS
    assert sum(found.log.event_count for found in sent) == of_customer
    assert read.blocks["sent_in_windows"] < 2.2 * of_customer


def test_each_hour_of_a_year_of_one_customer_is_summed_in_seconds(make_incremental_billing: MakeBilling) -> None:
    year = Window(NOON.replace(hour=0, minute=0) - 366 * DAY, NOON.replace(hour=0, minute=0))
    spans = [Span("customer-1", hour) for hour in year.pieces("hour")]
    with filled(make_incremental_billing(), "fresh") as app:
        one = app.comparison(NOON + HOUR)
        with one.database.connection() as connection, decision(connection) as tables:
            connection.execute(text("set local statement_timeout = '20s'"))  # it takes a tenth of one
            sent = sent_in(connection, tables, one.sending, spans, settled_before=None)
    assert len(sent) == 366 * 24
    assert sum(found.log.event_count for found in sent) > EARLIER / CUSTOMERS
