"""What the events in the files of an archive add up to, by key, beside the sealed sums; computed by DuckDB.

Invariant: sum, number and checksum are made from the columns of the events that counted, as `sum_events.sql` makes
them in Postgres; sums are exact, also past 38 digits. Files are read one after the other, and of each only sums by key
are kept: memory does not depend on the month. Of an event that the log has too, the log's row is taken: it may have
been changed.
"""

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recon_pipeline.lake.billed import REPEATED, billed, billed_of_many, checksum, one_event
from recon_pipeline.lake.session import duckdb_session, reporting

if TYPE_CHECKING:
    import pyarrow as pa

_KEY = "gateway_customer_id, period_start, period_end"
_KEY_AS_TEXT = "gateway_customer_id, period_start::varchar, period_end::varchar"
_IN_ONE_ORDER = "order by gateway_customer_id, period_start, period_end"


@dataclass(frozen=True)
class KeyOfArchive:
    """A key whose events are not those that were sealed; times as Postgres prints them.

    Attributes:
        sealed_sum: The sealed sum.
        sum_now: What the events add up to.
        sealed_events: Events that were sealed.
        events_now: Events that there are.
    """

    gateway_customer_id: str
    period_start: str
    period_end: str
    sealed_sum: int
    sum_now: Decimal
    sealed_events: int
    events_now: int


@dataclass(frozen=True)
class EventOfLog:
    """An event of the log that is not in the archive, or not so; values as text.

    Attributes:
        key: Customer, start and end of the period.
        is_changed: An event of its identity is in the archive.
    """

    key: tuple[str, str, str]
    request_id: str | None
    quantity: str | None
    event_timestamp: str | None
    created_at: str | None
    is_changed: bool


class ArchiveSums:
    """The sums of events, in a database of DuckDB's own.

    Args:
        session: DuckDB's connection.
        scale: The digits after the point that quantities have.
        identity: The columns that name an event.
    """

    def __init__(self, session: Any, scale: int, identity: Sequence[str]) -> None:
        self._session = session
        self._scale = scale
        self._identity = identity
        self._has_log = False
        session.execute(
            "create table summed (gateway_customer_id varchar, period_start timestamptz, period_end timestamptz,"
            " event_count bigint, units bignum, checksum hugeint)"
        )

    def add_log(self, rows: "pa.RecordBatchReader") -> None:
        """Take these rows of the log instead of those of the archive that have the same identity; before any file."""
        self._session.register("rows_of_log", rows)
        self._session.execute(
            "create table log as select *, false as recon_archived, false as recon_same from rows_of_log"
        )
        self._session.unregister("rows_of_log")
        self._has_log = True
        self._add("log", "recon_counted")

    def add_files(self, files: Iterable[Path]) -> None:
        """Add the events of files.

        Raises:
            ReconError: DuckDB cannot read one, or ran out of memory.
        """
        for file in files:
            with reporting(file.name):
                self._session.from_parquet(str(file)).create_view("archived", replace=True)
                if self._has_log:
                    self._compare_with_log()
                self._add("archived", self._where_not_in_log() if self._has_log else "recon_counted")

    def differing(self, sealed: "pa.RecordBatchReader", *, most: int | None = None) -> tuple[int, list[KeyOfArchive]]:
        """How many keys have other events than were sealed, and the first of them.

        Args:
            sealed: Key, `usage_count`, `event_count` and `event_checksum` as text.
            most: At most so many keys are returned.
        """
        with reporting("the sealed sums"):
            self._session.register("sealed", sealed)
            rows = self._session.execute(
                f"""
                select {_KEY_AS_TEXT}, coalesce(sealed.usage_count, 0), coalesce(now.units, '0'),
                    coalesce(sealed.event_count, 0), coalesce(now.event_count, 0), count(*) over ()
                from sealed
                full join (
                    select {_KEY}, sum(event_count)::bigint as event_count,
                        sum(units)::varchar as units, sum(checksum)::varchar as checksum
                    from summed
                    group by all
                ) as now using ({_KEY})
                where (
                    (sealed.usage_count::varchar || repeat('0', {self._scale}))::bignum::varchar,
                    sealed.event_count, sealed.event_checksum
                ) is distinct from (now.units, now.event_count, now.checksum)
                {_IN_ONE_ORDER}
                limit {"all" if most is None else most}
                """  # noqa: S608 - no value of a user
            ).fetchall()
        keys = [
            KeyOfArchive(row[0], row[1], row[2], row[3], Decimal(f"{row[4]}e-{self._scale}"), row[5], row[6])
            for row in rows
        ]
        return (rows[0][7] if rows else 0), keys

    def of_log_alone(self) -> list[EventOfLog]:
        """The events that count of the log that the files do not have, or not so; after the files were added."""
        rows = self._session.execute(
            f"""
            select
                {_KEY_AS_TEXT}, request_id::varchar, quantity::varchar, event_timestamp::varchar, created_at::varchar,
                recon_archived
            from log where recon_counted and not recon_same
            order by gateway_customer_id, period_start, created_at, request_id
            """  # noqa: S608 - no value of a user
        ).fetchall()
        return [EventOfLog(row[:3], *row[3:7], is_changed=row[7]) for row in rows]

    def _add(self, table: str, where: str) -> None:
        types, columns = self._types(table), ", ".join(REPEATED)
        is_same = " and ".join(f"{table}.{name} is not distinct from repeated.{name}" for name in REPEATED)
        self._session.execute(
            f"""
            insert into summed
            with repeated as materialized (
                select *, {billed_of_many(types, "these")} as text
                from (select distinct {columns} from {table} where {where}) as these
            )
            select gateway_customer_id::varchar, period_start::timestamptz, period_end::timestamptz, count(*),
                {self._units(types["quantity"])},
                sum(recon_bits::hugeint - if(recon_bits >= 9223372036854775808, 18446744073709551616::hugeint, 0))
            from (
                select {table}.*, {checksum(billed(types, table, repeated="repeated.text"))} as recon_bits
                from {table}
                join repeated on {is_same}
                where {where}
            ) as event
            group by all
            """  # noqa: S608 - no value of a user
        )

    def _units(self, quantity: str) -> str:
        """Their sum, as a whole number of the last digit that any quantity has."""
        if quantity in ("SMALLINT", "INTEGER", "BIGINT"):
            return f"(sum(quantity)::varchar || repeat('0', {self._scale}))::bignum"
        if quantity.startswith("DECIMAL"):
            digits = int(quantity.rstrip(")").rpartition(",")[2])
            return f"(replace(sum(quantity)::varchar, '.', '') || repeat('0', {self._scale - digits}))::bignum"
        point = "strpos(quantity || '.', '.')"
        padded = f"rpad(substr(quantity, {point} + 1), {self._scale}, '0')"
        return f"sum((substr(quantity, 1, {point} - 1) || {padded})::bignum)"

    def _types(self, table: str) -> dict[str, str]:
        return {row[0]: row[1] for row in self._session.execute(f"describe {table}").fetchall()}

    def _compare_with_log(self) -> None:
        """Mark the rows of the log of which the file has the identity, and the same."""
        log, archived = self._types("log"), self._types("archived")
        self._session.execute(
            f"""
            update log set recon_archived = true,
                recon_same = log.recon_same or {billed(log, "log")} = {billed(archived, "archived")}
            from archived
            where archived.recon_counted and {one_event(self._identity)}
            """  # noqa: S608 - no value of a user
        )

    def _where_not_in_log(self) -> str:
        in_log = f"select 1 from log where log.recon_counted and {one_event(self._identity)}"  # noqa: S608 - no value of a user
        return f"recon_counted and not exists ({in_log})"


@contextmanager
def archive_sums(scale: int, identity: Sequence[str]) -> Generator[ArchiveSums]:
    """Sums of archives, gone at the end; what does not fit into memory is kept in a temporary folder.

    Raises:
        ConfigurationError: DuckDB is not installed.
    """
    with duckdb_session() as session:
        yield ArchiveSums(session, scale, identity)
