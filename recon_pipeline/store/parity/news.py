"""Which keys are compared with a meter, and which of them have news in the log since the last comparison.

Invariant: what has changed is read, and not the log: events by ingest_xid from where the last comparison looked, and
customers whose events were deleted or updated. A key that is marked once too often costs one call; none is left out,
since what is no news any more was visible to every statement of the comparison that followed. A log without ingest_xid
says nothing of what is new: there the sums of all keys are compared with those of the last comparison.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, CursorResult, TextClause

from recon_pipeline.core.parity.windows import to_minute
from recon_pipeline.core.periods import BillingMonth, contiguous_ranges
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.parity.sending import Sending
from recon_pipeline.store.parity.sharing import Named, sent_together
from recon_pipeline.store.postgres.planning import look_up_by_index, plan_as_usual
from recon_pipeline.store.postgres.statements import labelled, statement
from recon_pipeline.store.sums import horizons, modes

KEYS_SUMMED_AT_ONCE = 10_000

# Lets one comparison at a time look for news.
# Invariant: never waits; ends with the transaction; the number is ours.
_LOCK = labelled("lock_parity_news", "select pg_try_advisory_xact_lock(720271127)")
# Where comparisons have looked for news.
# Index: the primary key of recon.parity_month.
# Binds: gateway_name text, partitions text[], usage_type text
_READ_MONTHS = labelled(
    "read_parity_months",
    """
    select partition, looked_below::text as looked_below, looked_as
    from recon.parity_month
    where gateway_name = :gateway_name
        and usage_type = :usage_type
        and partition = any(:partitions)
    """,
)
# Writes down where this comparison has looked.
# Index: the primary key of recon.parity_month.
# Binds: gateway_name text, looked_as text, looked_at timestamptz, looked_below xid8, partitions text[], usage_type text
_NOTE_MONTHS = labelled(
    "note_parity_months",
    """
    insert into recon.parity_month (gateway_name, usage_type, partition, looked_below, looked_at, looked_as)
    select :gateway_name, :usage_type, partition, :looked_below, :looked_at, :looked_as
    from unnest(cast(:partitions as text[])) as partition
    order by partition
    on conflict (gateway_name, usage_type, partition)
    do update set
        looked_below = excluded.looked_below, looked_at = excluded.looked_at, looked_as = excluded.looked_as
    """,
)
# Forgets the keys of an extent that have no counter any more, with what was found of them.
# Index: the primary key of recon.parity_key; the unique key of the counters.
# Uses: in_months.
_FORGET_KEYS = labelled(
    "forget_parity_keys",
    """
    delete from recon.parity_key as key
    where {in_months}
        and not exists (
            select
            from billing_usage_counters as counter
            where counter.gateway_name = key.gateway_name
                and counter.usage_type = key.usage_type
                and counter.gateway_customer_id = key.gateway_customer_id
                and counter.period_start = key.period_start
                and counter.period_end = key.period_end
        )
    """,
)
# Takes the notes of truncations.
# Index: recon.parity_note is small.
# Binds: gateway_name text, usage_type text
_TAKE_TRUNCATIONS = labelled(
    "take_parity_truncations",
    """
    delete from recon.parity_note
    where gateway_name = :gateway_name
        and usage_type = :usage_type
        and gateway_customer_id is null
    """,
)
# Forgets where comparisons have looked, so that every key has news.
# Index: the primary key of recon.parity_month.
# Binds: gateway_name text, usage_type text
_FORGET_MONTHS = labelled(
    "forget_parity_months",
    "delete from recon.parity_month where gateway_name = :gateway_name and usage_type = :usage_type",
)
# Marks every key of some months.
# Invariant: if events are sent in another way now, whom they named before says nothing of whom they name.
# Index: the primary key of recon.parity_key.
# Uses: in_months.
# Binds: began timestamptz, is_sent_otherwise boolean
_MARK_ALL = labelled(
    "mark_all_parity_keys",
    """
    update recon.parity_key
    set news_at = :began, provider_customer = case when not :is_sent_otherwise then provider_customer end
    where {in_months}
    """,
)
# The next keys of an extent that were compared and can have news, with the sum of then, in their order.
# Index: the primary key of recon.parity_key.
# Uses: in_months.
# Binds: customer text, most_keys bigint, period_end timestamptz, period_start timestamptz
_COMPARED_KEYS = labelled(
    "compared_parity_keys",
    """
    select gateway_customer_id, period_start, period_end, provider_customer, compared_log_units
    from recon.parity_key
    where {in_months}
        and compared_at is not null
        and (gateway_customer_id, period_start, period_end) > (:customer, :period_start, :period_end)
    order by gateway_customer_id, period_start, period_end
    limit :most_keys
    """,
)
# Marks some keys.
# Index: the primary key of recon.parity_key.
# Binds: began timestamptz, customers text[], gateway_name text, period_ends timestamptz[], period_starts timestamptz[]
# Binds: usage_type text
_MARK_KEYS = labelled(
    "mark_parity_keys",
    """
    with news as materialized (
        select
            cast(:gateway_name as text) as gateway_name, cast(:usage_type as text) as usage_type,
            gateway_customer_id, period_start, period_end
        from unnest(
            cast(:customers as text[]), cast(:period_starts as timestamptz[]), cast(:period_ends as timestamptz[])
        ) as given (gateway_customer_id, period_start, period_end)
    )
    update recon.parity_key as key
    set news_at = :began
    from news
    -- The usage comes from `news`, as in mark_parity_changed.
    where (key.gateway_name, key.usage_type, key.gateway_customer_id, key.period_start, key.period_end)
        = (news.gateway_name, news.usage_type, news.gateway_customer_id, news.period_start, news.period_end)
    """,
)


def look_for_news(connection: Connection, tables: BillingTables, sending: Sending, *, began: datetime) -> None:
    """Add and forget keys, and mark those that have news; in a decision.

    Where another comparison does so at this moment, nothing is done: what it marks is marked for all.
    """
    if not connection.execute(_LOCK).scalar_one():
        return
    _Looking(connection, tables, sending, began).look()


@dataclass(frozen=True)
class _Looking:
    """One look at the log; no other one is at it."""

    connection: Connection
    tables: BillingTables
    sending: Sending
    began: datetime

    def look(self) -> None:
        # In a statement of its own, before those that look: what is below it is visible to each of them.
        position = horizons.position(self.connection, self.tables)
        is_incremental = modes.choose(self.connection, self.tables).mode is modes.Mode.INCREMENTAL
        sent_as = f", sent as {self.sending.metering.as_sent}"
        looked_as = f"{self.tables.log_identity}{sent_as}"
        months = self.sending.extent.months
        partitions = {"partitions": [month.key for month in months]}
        looked = self._execute(_READ_MONTHS, **self.sending.named, **partitions).all()
        truncated = self._execute(_TAKE_TRUNCATIONS, **self.sending.named).rowcount
        was_truncated = truncated or position.was_truncated
        if was_truncated:
            self._execute(_FORGET_MONTHS, **self.sending.named)
        known = {
            row.partition: row.looked_below
            for row in (() if was_truncated else looked)
            if row.looked_as == looked_as and (row.looked_below is not None) == is_incremental
        }
        self._execute(_FORGET_KEYS, **self.sending.key)
        self._execute(statement("add_parity_keys"), **self.sending.in_log(self.tables), began=self.began)
        for first, last in contiguous_ranges(month for month in months if month.key not in known):
            self._execute(
                _MARK_ALL,
                **self.sending.key | {"start": first.start, "end": last.end},
                began=self.began,
                is_sent_otherwise=not all(row.looked_as.endswith(sent_as) for row in looked),
            )
        if is_incremental and known:
            since = min(map(int, known.values()))
            look_up_by_index(self.connection)
            self._execute(
                statement("mark_parity_news"),
                **self.sending.key,
                **self.sending.stamp,
                since=str(since),
                began=self.began,
            )
            plan_as_usual(self.connection)
        self._execute(statement("mark_parity_changed"), **self.sending.named, began=self.began)
        if known and not is_incremental:
            for first, last in contiguous_ranges(month for month in months if month.key in known):
                self._mark_by_sums(first, last)
        self._execute(
            _NOTE_MONTHS,
            **self.sending.named,
            **partitions,
            looked_below=str(position.oldest_transaction) if is_incremental else None,
            looked_at=self.began,
            looked_as=looked_as,
        )

    def _mark_by_sums(self, first: BillingMonth, last: BillingMonth) -> None:
        """Mark the keys whose sums are not those of their last comparison."""
        extent = self.sending.key | {"start": first.start, "end": last.end}
        after = {"customer": "", "period_start": first.start, "period_end": first.start}
        while True:
            keys = self._execute(_COMPARED_KEYS, **extent, **after, most_keys=KEYS_SUMMED_AT_ONCE).all()
            if not keys:
                return
            named = [
                Named(key.gateway_customer_id, (key.period_start, key.period_end), key.provider_customer)
                for key in keys
            ]
            sums = sent_together(self.connection, self.tables, self.sending, named, until=to_minute(self.began))
            news = [key for key, units in zip(keys, sums, strict=True) if units != key.compared_log_units]
            self._execute(
                _MARK_KEYS,
                **self.sending.named,
                customers=[key.gateway_customer_id for key in news],
                period_starts=[key.period_start for key in news],
                period_ends=[key.period_end for key in news],
                began=self.began,
            )
            last_key = keys[-1]
            after = {
                "customer": last_key.gateway_customer_id,
                "period_start": last_key.period_start,
                "period_end": last_key.period_end,
            }

    def _execute(self, clause: TextClause, **parameters: Any) -> CursorResult[Any]:
        return self.connection.execute(clause, parameters)
