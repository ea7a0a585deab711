"""Row level security of the application's tables: refused if it could hide a row, used if it lets us see all rows.

Invariant: no transaction of ours reads a table of which a policy hides rows. Our transactions begin with `row_security`
off: then Postgres raises an error if a policy would apply. It is switched on only while the tables are locked, so that
none of their policies can change, and only where a permissive policy, for all roles or for ours by name, is `true` and
none is restrictive: then the memberships of our role, and whether it bypasses policies, make no difference.
"""

from collections.abc import Iterable

from sqlalchemy import Connection

from recon_pipeline.core.errors import UntrustworthyLogError
from recon_pipeline.store.log.tables import COUNTERS, SUBSCRIPTIONS, Server, Table, describe_server, describe_tables
from recon_pipeline.store.postgres.statements import labelled, with_name

# Whether policies decide which rows of some tables our role sees.
# Binds: table_names text[]
_IS_ACTIVE = labelled(
    "is_row_security_active",
    """
    select coalesce(bool_or(row_security_active(to_regclass(name))), false)
    from unnest(cast(:table_names as text[])) as name
    """,
)
_LOCKABLE = "rpv"
"""Kinds of tables that LOCK TABLE takes: plain and partitioned ones, and views. Limits may be read from others, too."""


def see_every_row(connection: Connection, *names: str) -> None:
    """Apply the policies of these tables for the rest of the transaction, if they have any and let us see all rows.

    Args:
        connection: In a transaction; of REPEATABLE READ only where the tables were locked before its first snapshot.
        names: Tables of the application that the transaction reads, each of which need not be there.

    Raises:
        UntrustworthyLogError: A policy could hide rows.
        DBAPIError: Another session has one of the tables locked.
    """
    if not connection.execute(_IS_ACTIVE, {"table_names": list(names)}).scalar_one():
        return
    found = lockable(describe_tables(connection, *names).values())
    connection.exec_driver_sql(with_name("lock_tables", f"lock table {', '.join(found)} in access share mode"))
    require_every_row(describe_tables(connection, *names).values(), describe_server(connection))
    connection.exec_driver_sql("set local row_security = on")


def lockable(tables: Iterable[Table]) -> tuple[str, ...]:
    """The looked-up names of those tables that can be locked."""
    return tuple(table.wanted for table in tables if table.kind in _LOCKABLE)


def require_every_row(tables: Iterable[Table], server: Server) -> None:
    """Refuse tables of which a policy could hide rows.

    Raises:
        UntrustworthyLogError: Names the policy that is missing or restrictive.
    """
    found = tuple(tables)
    for table in found:
        hidden = hidden_rows(table, server.role)
        if hidden is not None:
            raise UntrustworthyLogError(hidden[0], fix=hidden[1])
    view = next((table for table in found if table.kind == "v"), None)
    if view is not None and any(table.row_security_active for table in found):
        raise UntrustworthyLogError(
            f"{view.name} is a view, and row level security is active for role {server.role}: what it hides behind "
            "the view would be missing without an error.",
            fix=f"alter role {server.role} bypassrls; or let search_path find a table {SUBSCRIPTIONS}.",
        )


def hidden_rows(table: Table, role: str) -> tuple[str, str] | None:
    """Why policies could hide rows of the table from our role, and the fix; None if it sees every row."""
    if not table.hides_rows:
        return None
    what = (
        f"Row level security is active on {table.name} for role {role}: it would hide rows without an error, and "
        "counters would be repaired to too little."
    )
    bypass = f"alter role {role} bypassrls;"
    if table.restrictive_policy is not None:
        return (
            f"{what} The restrictive policy {table.restrictive_policy} narrows what others allow.",
            f"{bypass} or let the owner of the table drop that policy.",
        )
    command, checked = ("all", " with check (true)") if table.wanted == COUNTERS else ("select", "")
    policy = f"create policy recon_pipeline on {table.name} for {command} to {role} using (true){checked};"
    return what, (
        f"{bypass} or, where only a superuser may do that, and first revoke {role} from the owner of the table if row "
        f"level security is forced there (a member of {role} sees every row, too), as the owner of the table: {policy}"
    )
