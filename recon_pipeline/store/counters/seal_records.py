"""The record of seals in `recon.month_seal`, which is only ever added to.

Invariant: each row is bound to the one with the number before by its chain, and no two to the same (a unique key), so
that two sessions never seal at one moment, and no row can be changed, or taken out from under later ones, unnoticed.
That the newest rows were taken out shows only to who has kept a later chain.
"""

import json
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, RowMapping
from sqlalchemy.exc import IntegrityError

from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.core.seals import FIRST_LINK, Seal, chained
from recon_pipeline.store.postgres.statements import labelled

NOTHING_SEALED = "No counter was changed, and no seal was written."

# Every sealing and reopening, the oldest first.
_READ_SEALS = labelled("read_seals", "select *, seen::text as snapshot from recon.month_seal order by id")
# The number of the next seal, its time, and the snapshot that it is taken at.
_NEXT_SEAL = labelled(
    "next_seal",
    """
    select
        nextval(pg_get_serial_sequence('recon.month_seal', 'id')) as id,
        now() as acted_at,
        pg_current_snapshot()::text as seen
    """,
)
# The last seal.
_LAST_SEAL = labelled("last_seal", "select id, chain from recon.month_seal order by id desc limit 1")
# Whether there are sealed sums of a seal.
# Index: the primary key of recon.sealed_counter.
# Binds: seal_id bigint
_HAS_SUMS = labelled("has_sealed_sums", "select exists (select from recon.sealed_counter where seal_id = :seal_id)")
# The sealed sums of which there is no seal.
# Index: the primary key of recon.sealed_counter.
_SUMS_WITHOUT_SEAL = labelled(
    "sums_without_seal",
    """
    select count(*)
    from recon.sealed_counter
    where seal_id not in (select id from recon.month_seal where kind = 'sealed')
    """,
)
# Records a seal or a reopening.
# Invariant: nothing is ever changed or deleted.
# Binds: acted_at timestamptz, acted_by text, chain text, checksum text, event_count bigint, gateway_name text
# Binds: id bigint, key_count bigint, kind text, lake_source jsonb, nonzero_count bigint, partition text
# Binds: previous_chain text, reason text, run_id text, seen pg_snapshot, usage_count numeric, usage_type text
_APPEND_SEAL = labelled(
    "append_seal",
    """
    insert into recon.month_seal (
        id, kind, gateway_name, usage_type, partition, acted_at, acted_by, reason, run_id, seen,
        key_count, nonzero_count, event_count, usage_count, checksum, previous_chain, chain, lake_source
    )
    overriding system value
    values (
        :id, :kind, :gateway_name, :usage_type, :partition, :acted_at, :acted_by, :reason, :run_id, :seen,
        :key_count, :nonzero_count, :event_count, :usage_count, :checksum, :previous_chain, :chain, :lake_source
    )
    """,
)
# What the sealed sums of a seal add up to, with a checksum of them that does not depend on their order: sha256 of the
# sum of the first eight bytes of the sha256 of each key with its sums.
# Index: the primary key of recon.sealed_counter.
# Binds: seal_id bigint
_TOTAL_SEALED = labelled(
    "total_sealed_counters",
    """
    select
        count(*) as key_count,
        count(*) filter (where usage_count <> 0) as nonzero_count,
        coalesce(sum(event_count), 0)::bigint as event_count,
        coalesce(sum(usage_count), 0)::numeric as usage_count,
        encode(
            sha256(convert_to(
                coalesce(
                    sum(
                        ('x' || left(encode(sha256(convert_to(
                            concat(
                                octet_length(gateway_customer_id), ':', gateway_customer_id,
                                ';', extract(epoch from period_start), ';', extract(epoch from period_end),
                                ';', usage_count, ';', event_count, ';', trim_scale(credit_units), ';', event_checksum
                            ),
                            'UTF8'
                        )), 'hex'), 16))::bit(64)::bigint
                    ),
                    0
                )::text,
                'UTF8'
            )),
            'hex'
        ) as checksum
    from recon.sealed_counter
    where seal_id = :seal_id
    """,
)


class NotSealedError(ReconError):
    """A month cannot be sealed yet.

    Args:
        what: Why.
        fix: What to do.
    """

    def __init__(self, what: str, *, fix: str) -> None:
        super().__init__(what, fix=fix, changed=NOTHING_SEALED)


@dataclass(frozen=True)
class RecordedSeal:
    """A row of `recon.month_seal`."""

    id: int
    seal: Seal
    previous_chain: str
    chain: str

    @property
    def usage(self) -> MeteredUsage:
        """The metered usage that it is of."""
        return MeteredUsage(self.seal.gateway_name, self.seal.usage_type)

    @property
    def of_what(self) -> str:
        """For a person."""
        return f"{self.seal.partition} of {self.usage}"

    @property
    def by_whom(self) -> str:
        """For a person."""
        return f"by {self.seal.acted_by} on {self.seal.acted_at:%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True)
class Totals:
    """What the sealed sums of a seal add up to; as in `Seal`."""

    key_count: int
    nonzero_count: int
    event_count: int
    usage_count: Decimal
    checksum: str

    @classmethod
    def of(cls, seal: Seal) -> "Totals":
        """Those that a seal states."""
        return cls(**{field.name: getattr(seal, field.name) for field in fields(cls)})


@dataclass(frozen=True)
class Next:
    """The seal that is being written: its number, time and snapshot."""

    id: int
    acted_at: Any
    seen: str


def read_seals(connection: Connection) -> tuple[RecordedSeal, ...]:
    """Every sealing and reopening, the oldest first."""
    return tuple(_recorded(row) for row in connection.execute(_READ_SEALS).mappings())


def newest_of_month(connection: Connection, usage: MeteredUsage, partition: str) -> RecordedSeal | None:
    """The last sealing or reopening of a month, or None."""
    of_month = [one for one in read_seals(connection) if one.usage == usage and one.seal.partition == partition]
    return of_month[-1] if of_month else None


def next_seal(connection: Connection) -> Next:
    """Number, time and snapshot of a seal to be written.

    Raises:
        ReconError: Somebody has written sealed sums of that number by hand.
    """
    coming = Next(**connection.execute(_NEXT_SEAL).mappings().one())
    if connection.execute(_HAS_SUMS, {"seal_id": coming.id}).scalar_one():
        raise ReconError(
            f"recon.sealed_counter has rows of seal {coming.id}, which is not written yet: somebody added them by "
            "hand, and they would be billed.",
            changed=NOTHING_SEALED,
            fix="Find out who did. The table is append only, so this number stays unused: run the command again.",
        )
    return coming


def sums_without_seal(connection: Connection) -> int:
    """How many sealed sums there are of which there is no seal."""
    return connection.execute(_SUMS_WITHOUT_SEAL).scalar_one()


def totals(connection: Connection, seal_id: int) -> Totals:
    """What the sealed sums of a seal add up to."""
    return Totals(**connection.execute(_TOTAL_SEALED, {"seal_id": seal_id}).mappings().one())


def append(connection: Connection, seal_id: int, seal: Seal) -> RecordedSeal:
    """Write a seal down, bound to the last one.

    Raises:
        ReconError: Another session wrote a seal since this one's number was drawn.
    """
    last = connection.execute(_LAST_SEAL).one_or_none()
    previous: str = last.chain if last is not None else FIRST_LINK
    recorded = RecordedSeal(seal_id, seal, previous, chained(previous, seal))
    source = None if seal.lake_source is None else json.dumps(seal.lake_source)
    row = {**asdict(seal), "id": seal_id, "previous_chain": previous, "chain": recorded.chain, "lake_source": source}
    overtaken = ReconError(
        f"Another session sealed or reopened a month while {recorded.of_what} was.",
        changed=NOTHING_SEALED,
        fix="Run the command again.",
    )
    if last is not None and last.id > seal_id:
        raise overtaken
    try:
        connection.execute(_APPEND_SEAL, row)
    except IntegrityError as error:
        raise overtaken from error
    return recorded


def _recorded(row: RowMapping) -> RecordedSeal:
    figures = {field.name: row[field.name] for field in fields(Seal)} | {"seen": row["snapshot"]}
    return RecordedSeal(row["id"], Seal(**figures), row["previous_chain"], row["chain"])
