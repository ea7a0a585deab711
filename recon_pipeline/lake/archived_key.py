"""The events of one key of an archived month, of archive and log together, as text for Postgres; read by DuckDB.

Invariant: of an event that both have the log's row is taken. Only events that count are returned.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recon_pipeline.lake.billed import one_event
from recon_pipeline.lake.session import duckdb_session, reporting

if TYPE_CHECKING:
    import pyarrow as pa

_OF_KEY = "recon_counted and gateway_customer_id = ? and period_start = ?::timestamptz and period_end = ?::timestamptz"
_ROWS = 10_000


def events_of_key(
    files: Iterable[Path],
    log: "pa.RecordBatchReader",
    identity: Sequence[str],
    key: tuple[str, str, str],
    columns: Sequence[str],
) -> Iterator[Sequence[tuple[str | None, ...]]]:
    """The events in pieces, with these columns.

    Args:
        files: Of the archive.
        log: The rows of the month of the key's customer, with `recon_counted`.
        identity: The columns that name an event.
        key: Customer, start and end of the period.
        columns: Of the log; those that the files do not have are null.

    Raises:
        ReconError: DuckDB cannot read one, or ran out of memory.
    """
    with duckdb_session() as session:
        session.register("rows_of_log", log)
        session.execute("create table log as select * from rows_of_log where recon_counted")
        session.unregister("rows_of_log")
        yield from _pieces(session.execute(f"select {_as_text(session, 'log', columns)} from log where {_OF_KEY}", key))  # noqa: S608 - no value of a user
        for file in files:
            with reporting(file.name):
                session.from_parquet(str(file)).create_view("archived", replace=True)
                text = _as_text(session, "archived", columns)
                alone = f"not exists (select 1 from log where {one_event(identity)})"  # noqa: S608 - no value of a user
                yield from _pieces(session.execute(f"select {text} from archived where {_OF_KEY} and {alone}", key))  # noqa: S608 - no value of a user


def _as_text(session: Any, table: str, columns: Sequence[str]) -> str:
    there = {row[0] for row in session.execute(f"describe {table}").fetchall()}
    return ", ".join(f'"{name}"::varchar' if name in there else "null::varchar" for name in columns)


def _pieces(found: Any) -> Iterator[Sequence[tuple[str | None, ...]]]:
    while rows := found.fetchmany(_ROWS):
        yield rows
