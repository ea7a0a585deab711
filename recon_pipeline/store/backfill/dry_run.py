"""The dry run of a backfill: finds out what it would do, without inserting an event.

Invariant: one transaction with a temporary table; no row of the application's is written or locked. Not found here is
what only the log itself can refuse (a trigger, a check, another foreign key than the customer's).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection

from recon_pipeline.core.quotas import Quota
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.backfill import batches
from recon_pipeline.store.backfill.batches import COPY_REJECTED_EVENTS
from recon_pipeline.store.backfill.insertion import Chunk, refused_rows
from recon_pipeline.store.backfill.staging import COPY_STAGED_EVENTS, declare_identity
from recon_pipeline.store.backfill.tally import Tally
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.log.limits import limit_parameters
from recon_pipeline.store.log.row_security import see_every_row
from recon_pipeline.store.log.tables import COUNTERS, EVENTS, SUBSCRIPTIONS
from recon_pipeline.store.postgres.copy import copy_in, copy_lines_in
from recon_pipeline.store.postgres.planning import look_up_each_by_index, plan_as_usual
from recon_pipeline.store.postgres.statements import labelled, statement

# Gives the planner the size of the staged events: with a guess it may choose a nested loop.
# After: create_staged_events, declare_identity, preview_staged_events.
_ANALYZE_PREVIEW_EVENTS = labelled("analyze_preview_events", "analyze pg_temp.preview_event")
# Creates the index that finds the first event of a request id, in a source that is previewed as a whole.
# After: create_staged_events.
INDEX_STAGED_EVENTS = labelled("index_staged_events", "create unique index on pg_temp.staged_event (ordinal)")
# Creates the index that finds the events of a request id, if their time is part of the identity and may be cut or
# rounded.
# After: create_staged_events.
_INDEX_STAGED_REQUESTS = labelled(
    "index_staged_requests", "create index on pg_temp.staged_event (request_id, gateway_name)"
)
# The outcomes that the events of a whole source would have, by billing month.
# Index: none; the preview is read as a whole.
# After: create_staged_events, declare_identity, preview_staged_events.
_BY_MONTH = labelled(
    "preview_by_month",
    """
    select
        outcome, partition, count(*) as events, sum(quantity) as units,
        count(distinct gateway_customer_id) as customers
    from pg_temp.preview_event
    group by outcome, partition
    """,
)
# The customers of one metered usage who would get the most usage.
# Index: none; the preview is read as a whole.
# After: create_staged_events, declare_identity, preview_staged_events.
# Binds: gateway_name text, rows bigint, usage_type text
_BY_CUSTOMER = labelled(
    "units_by_customer",
    """
    select gateway_customer_id, partition, count(*) as events, sum(quantity) as units
    from pg_temp.preview_event
    where outcome = 'inserted' and gateway_name = :gateway_name and usage_type = :usage_type
    group by gateway_customer_id, partition
    order by units desc, gateway_customer_id, partition
    limit :rows
    """,
)


_OUTCOMES = ("inserted", "duplicate", "conflict")
_OVER_QUOTA = (
    "gateway_customer_id",
    "period_start",
    "period_end",
    "usage_count",
    "usage_count_after",
    "usage_limit",
)


@dataclass(frozen=True)
class PreviewOptions:
    """What a preview is to cover.

    Attributes:
        scope: The metered usages.
        quotas: Limits by usage type.
        paid_statuses: With which a subscription gives its customer the paid limit.
        rows: The most customers of each kind.
    """

    scope: tuple[MeteredUsage, ...]
    quotas: Mapping[str, Quota]
    paid_statuses: tuple[str, ...]
    rows: int = 100


@dataclass(frozen=True)
class PreviewMonth:
    """What would become of the events of a billing month; `outcome` is inserted, duplicate or conflict."""

    partition: str
    outcome: str
    events: int
    units: Decimal
    customers: int


@dataclass(frozen=True)
class PreviewCustomer:
    """What a customer would get in a billing month."""

    usage_type: str
    gateway_customer_id: str
    partition: str
    events: int
    units: Decimal


@dataclass(frozen=True)
class OverQuota:
    """A customer who would reach or pass the limit; counters as they are now."""

    usage_type: str
    gateway_customer_id: str
    period_start: datetime
    period_end: datetime
    usage_count: int
    usage_count_after: Decimal
    usage_limit: int


@dataclass(frozen=True)
class Preview:
    """What would happen.

    Attributes:
        months: By billing month and outcome.
        customers: Those who would get the most, in order.
        over_quota: Those who would go over their limit.
        over_quota_transitions: How many there are in all.
    """

    months: tuple[PreviewMonth, ...]
    customers: tuple[PreviewCustomer, ...]
    over_quota: tuple[OverQuota, ...]
    over_quota_transitions: int


class DryRun:
    """Rows that are previewed as a whole, in a transaction of the caller's."""

    def __init__(self, connection: Connection, batch_id: str, tables: BillingTables) -> None:
        self._connection = connection
        self._batch_id = batch_id
        self._tables = tables
        self._rejected = 0
        self._skipped = 0
        connection.execute(statement("create_staged_events"))

    def take(self, chunk: Chunk) -> None:
        """Add some more rows."""
        copy_lines_in(self._connection, COPY_STAGED_EVENTS, chunk.lines)
        refused = refused_rows(self._batch_id, chunk)
        if refused:
            copy_in(self._connection, COPY_REJECTED_EVENTS, refused)
        self._rejected += len(refused)
        self._skipped += chunk.skipped

    def preview(self, question: PreviewOptions) -> Preview:
        """The preview of all rows; counted in the record of the batch."""
        connection = self._connection
        see_every_row(connection, EVENTS, COUNTERS, SUBSCRIPTIONS)
        connection.execute(INDEX_STAGED_EVENTS)
        if self._tables.event_identity.has_times:
            connection.execute(_INDEX_STAGED_REQUESTS)
        look_up_each_by_index(connection)
        declare_identity(connection, self._tables.event_identity)
        connection.execute(statement("preview_staged_events"))
        plan_as_usual(connection)
        connection.execute(_ANALYZE_PREVIEW_EVENTS)
        rows = connection.execute(_BY_MONTH).mappings()
        months = tuple(sorted((PreviewMonth(**row) for row in rows), key=lambda one: (one.partition, one.outcome)))
        inserted, duplicate, conflict = (sum(one.events for one in months if one.outcome == name) for name in _OUTCOMES)
        taken = frozenset(one.partition for one in months if one.outcome != "conflict")
        batches.count(
            connection,
            self._batch_id,
            Tally(inserted, duplicate, conflict, self._rejected, partitions=taken, skipped=self._skipped),
        )
        customers: list[PreviewCustomer] = []
        over_quota: list[OverQuota] = []
        over_quota_count = 0
        for usage in question.scope:
            asked = {"gateway_name": usage.gateway_name, "usage_type": usage.usage_type, "rows": question.rows}
            found = connection.execute(_BY_CUSTOMER, asked).mappings()
            customers += [PreviewCustomer(usage_type=usage.usage_type, **row) for row in found]
            quota = question.quotas.get(usage.usage_type)
            if quota is None or not self._tables.has_subscriptions:
                continue
            sealed = [one for one in self._tables.stand_ins if one.usage == usage]
            limits = limit_parameters(quota, question.paid_statuses, has_subscriptions=True)
            limits |= {"sealed_months": [one.month.start for one in sealed]}
            limits |= {"sealed_until": [one.covers_until for one in sealed]}
            rows = connection.execute(statement("over_quota_by_staged"), asked | limits).mappings().all()
            over_quota += [OverQuota(usage.usage_type, *(row[name] for name in _OVER_QUOTA)) for row in rows]
            over_quota_count += rows[0]["total"] if rows else 0
        return Preview(months, tuple(customers), tuple(over_quota), over_quota_count)
