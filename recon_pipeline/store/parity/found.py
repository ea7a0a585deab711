"""What comparisons with a meter found, for checks, commands, pages and monitoring.

Invariant: figures are of each key's last comparison, which has a time; a key that was never compared is counted as
such, and never as one without a difference.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection

from recon_pipeline.core.scope import Extent, MeteredUsage
from recon_pipeline.store.postgres.statements import labelled
from recon_pipeline.store.sums.run import SAMPLE_ROWS

# Where log and meter differ, the largest differences first.
# Index: none: one pass over the differences, which are few.
# Uses: in_extent_of_scope.
# Binds: most bigint
_DIFFERENCES = labelled(
    "read_differences",
    """
    select
        difference.gateway_name, difference.usage_type, difference.gateway_customer_id,
        difference.period_start, difference.period_end, difference.window_start, difference.window_end,
        difference.kind, difference.log_units, difference.provider_units,
        difference.provider_units - difference.log_units as units, difference.evidence, key.compared_at
    from recon.parity_difference as difference
    join recon.parity_key as key using (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
    where {in_extent_of_scope}
    order by abs(difference.provider_units - difference.log_units) desc, difference.id
    limit :most
    """,
)
# The differences by usage and class: how many windows, customers and units.
# Index: none: one pass over the differences, which are few.
# Uses: in_extent_of_scope.
_BY_CLASS = labelled(
    "differences_by_class",
    """
    select
        gateway_name, usage_type, kind,
        count(*) as differences,
        count(distinct gateway_customer_id) as customers,
        sum(provider_units - log_units)::numeric as units
    from recon.parity_difference
    where {in_extent_of_scope}
    group by gateway_name, usage_type, kind
    order by gateway_name, usage_type, kind
    """,
)
# The keys: how many were compared, differ or were refused, since when the oldest comparison of all is, and what is
# labelled as of another period than its time.
# Index: the primary key of recon.parity_key; recon.parity_month is small.
# Uses: in_extent_of_scope, is_one_sum.
_COVERAGE = labelled(
    "parity_coverage",
    """
    select
        count(*) as keys,
        count(compared_at) as compared,
        count(*) filter (where difference_count > 0) as differing,
        count(error) as refused,
        coalesce(sum(elsewhere_count), 0)::bigint as elsewhere_count,
        coalesce(sum(elsewhere_units), 0)::numeric as elsewhere_units,
        coalesce(sum(compared_log_units) filter (where is_one_sum), 0)::numeric as log_units,
        coalesce(sum(provider_units) filter (where is_one_sum), 0)::numeric as provider_units,
        min(coalesce(compared_at, first_noted_at)) filter (
            where period_end > looked.last_at - case when compared_at is null then interval '35 days' else '3 days' end
        ) as oldest
    from (
        select
            key.*,
            {is_one_sum} as is_one_sum
        from recon.parity_key as key
        where {in_extent_of_scope}
    ) as key
    cross join (select max(looked_at) as last_at from recon.parity_month) as looked
    """,
)
# Keys whose customer the provider refused, or those with events of another label.
# Index: the primary key of recon.parity_key.
# Uses: in_extent_of_scope.
# Binds: are_refused boolean, most bigint
_ODD_KEYS = labelled(
    "odd_parity_keys",
    """
    select usage_type, gateway_customer_id, period_start, period_end, error, elsewhere_count, elsewhere_units
    from recon.parity_key
    where {in_extent_of_scope}
        and case when :are_refused then error is not null else elsewhere_count > 0 end
    order by abs(elsewhere_units) desc, gateway_customer_id, period_start
    limit :most
    """,
)


@dataclass(frozen=True)
class DifferenceFound:
    """A difference of a key, as its last comparison found it; units: by how much the meter has more.

    What a person needs comes first: an alert shows the beginning of each.
    """

    gateway_customer_id: str
    usage_type: str
    kind: str
    units: Decimal
    log_units: Decimal
    provider_units: Decimal
    evidence: str
    window_start: datetime
    window_end: datetime
    period_start: datetime
    period_end: datetime
    compared_at: datetime
    gateway_name: str


@dataclass(frozen=True)
class ClassTotal:
    """The differences of one usage and class; units: by how much the meter has more."""

    gateway_name: str
    usage_type: str
    kind: str
    differences: int
    customers: int
    units: Decimal


@dataclass(frozen=True)
class Coverage:
    """The keys, and how far they were compared.

    Attributes:
        keys: All that are compared.
        compared: Those that were compared at least once.
        differing: Those with a difference.
        refused: Those whose customer the provider refused.
        elsewhere_count: Events whose label is another period than that of their time.
        elsewhere_units: Their units.
        log_units: What the log said was sent, of those of which the meter's figure is known.
        provider_units: What the meter had of them.
        oldest: Of the keys that can still be billed, or were never compared and still can be: the oldest comparison,
            or since when it is missing; None without such keys.
    """

    keys: int
    compared: int
    differing: int
    refused: int
    elsewhere_count: int
    elsewhere_units: Decimal
    log_units: Decimal
    provider_units: Decimal
    oldest: datetime | None


@dataclass(frozen=True)
class OddKey:
    """A key whose customer was refused, or with events of another label."""

    usage_type: str
    gateway_customer_id: str
    period_start: datetime
    period_end: datetime
    error: str | None
    elsewhere_count: int
    elsewhere_units: Decimal


def differences(
    connection: Connection, extent: Extent, *, most: int | None = SAMPLE_ROWS
) -> tuple[DifferenceFound, ...]:
    """The differences of an extent, the largest first; in a transaction. None: all of them."""
    rows = connection.execute(_DIFFERENCES, {**_of(extent), "most": most})
    return tuple(DifferenceFound(**row) for row in rows.mappings())


def by_class(connection: Connection, extent: Extent) -> tuple[ClassTotal, ...]:
    """The same, by usage and class."""
    return tuple(ClassTotal(**row) for row in connection.execute(_BY_CLASS, _of(extent)).mappings())


def coverage(connection: Connection, extent: Extent) -> Coverage:
    """How far the keys of an extent were compared; in a transaction."""
    return Coverage(**connection.execute(_COVERAGE, _of(extent)).mappings().one())


def odd_keys(connection: Connection, extent: Extent, *, are_refused: bool) -> tuple[OddKey, ...]:
    """A sample of the keys that were refused, or of those that have events of another label; in a transaction."""
    rows = connection.execute(_ODD_KEYS, {**_of(extent), "are_refused": are_refused, "most": SAMPLE_ROWS})
    return tuple(OddKey(**row) for row in rows.mappings())


def _of(extent: Extent) -> dict[str, object]:
    scope: Sequence[MeteredUsage] = extent.scope
    return {
        "start": extent.start,
        "end": extent.end,
        "every_customer": extent.customers is None,
        "customers": list(extent.customers or ()),
        "gateway_names": [usage.gateway_name for usage in scope],
        "usage_types": [usage.usage_type for usage in scope],
    }
