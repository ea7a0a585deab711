"""Puts events of an archive in the place of the log, for the statements of one transaction that explain a key.

Invariant: the table is of this session alone and gone with the transaction; the log itself is not touched. A name
without a schema means it before the log, as it does for every temporary table.
"""

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.core.errors import NOTHING_CHANGED, ReconError
from recon_pipeline.store.archive.columns import log_columns
from recon_pipeline.store.postgres.statements import labelled, with_name

# Whether our role may create temporary tables here.
_MAY_STAGE = labelled(
    "may_stage_events", "select current_user, has_database_privilege(current_database(), 'temporary') as can_stage"
)
_EXPLAINED = (
    "id", "gateway_name", "gateway_customer_id", "usage_type", "request_id", "quantity", "period_start", "period_end",
    "event_timestamp", "created_at", "metadata", "ingest_xid",
)  # fmt: skip


def columns_explained(connection: Connection) -> tuple[str, ...]:
    """The columns of the log that explain its usage; in a transaction."""
    there = {column.name for column in log_columns(connection)}
    return tuple(name for name in _EXPLAINED if name in there)


@contextmanager
def in_place_of_log(
    connection: Connection, columns: Sequence[str], events: Iterable[Sequence[tuple[str | None, ...]]]
) -> Generator[None]:
    """Let statements inside read these events instead of the log.

    Args:
        connection: In a transaction.
        columns: What `columns_explained` returned.
        events: Their values, as Postgres reads them.

    Raises:
        ReconError: Our role may not create temporary tables.
    """
    role = connection.execute(_MAY_STAGE).one()
    if not role.can_stage:
        raise ReconError(
            f"Role {role.current_user} may not create temporary tables, where events of the archive are summed.",
            changed=NOTHING_CHANGED,
            fix=f"grant temporary on database ... to {role.current_user};",
        )
    named = ", ".join(columns)
    made = f"create temporary table events_explained on commit drop as select {named} from billing_usage_events"  # noqa: S608 - names of ours
    driver: Any = connection.connection.driver_connection
    with connection.begin_nested():  # so that a file that cannot be read leaves the transaction as it was
        connection.exec_driver_sql(with_name("make_events_explained", f"{made} with no data"))
        with driver.cursor().copy(f"copy pg_temp.events_explained ({named}) from stdin") as copy:
            for rows in events:
                for row in rows:
                    copy.write_row(row)
        connection.exec_driver_sql("alter table pg_temp.events_explained rename to billing_usage_events")
    yield
    connection.exec_driver_sql("drop table pg_temp.billing_usage_events")
