"""Server and tables as the catalog describes them, for the role we are; decides nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.store.postgres.statements import statement

EVENTS = "billing_usage_events"
COUNTERS = "billing_usage_counters"
SUBSCRIPTIONS = "billing_subscriptions"


@dataclass(frozen=True)
class Table:
    """One table as the catalog describes it, for the role we are.

    Attributes:
        wanted: The looked-up name.
        name: As found through search_path.
        kind: `r` for a plain table, `p` for a partitioned one, else a view, a foreign table or the like.
        types: Column name to type name.
        digits: Column name to the digits of a second that an instant in it keeps; 6 for other types.
        defaulted: Columns that fill themselves on insert.
        unique_keys: Column sets of valid, unconditional unique indexes; an expression stands in them by its text.
        leading_index_columns: First column of each valid, unconditional index of the table or of all its partitions.
        period_index_without_customer: An index that begins with `period_start` and has no customer.
        checked_columns: Columns in a valid CHECK.
        row_security_active: Policies decide what we see.
        unrestricted_commands: The commands that policies allow us on every row: `r` read, `a` add, `w` write.
        restrictive_policy: A policy that restricts the others, for whichever role.
        foreign_part: The table itself, a partition of it or a table that inherits from it, if that is a foreign table.
        heir: A table that inherits from it without being a partition.
        finds_periods: An index of it, or of each partition, begins with `period_start`, or with `usage_type` and it.
        can_select: Privilege on the whole table.
        can_insert: Privilege on the whole table.
        can_delete: Privilege on the whole table.
        updatable_columns: Columns that we may update.
    """

    wanted: str
    name: str
    kind: str
    types: dict[str, str]
    digits: dict[str, int]
    defaulted: frozenset[str]
    unique_keys: tuple[frozenset[str], ...]
    leading_index_columns: frozenset[str]
    period_index_without_customer: str | None
    checked_columns: frozenset[str]
    row_security_active: bool
    unrestricted_commands: frozenset[str]
    restrictive_policy: str | None
    foreign_part: str | None
    heir: str | None
    finds_periods: bool
    can_select: bool
    can_insert: bool
    can_delete: bool
    updatable_columns: frozenset[str]

    @property
    def hides_rows(self) -> bool:
        """Policies could hide a row that we need: counters are written, the others read."""
        needed = {"r", "a", "w"} if self.wanted == COUNTERS else {"r"}
        return self.row_security_active and not needed <= self.unrestricted_commands


@dataclass(frozen=True)
class Server:
    """The server and our role on it.

    Attributes:
        version: As `server_version_num`, for example 150018.
        version_name: For people.
        is_standby: In recovery: lags behind and takes no writes.
        role: Our role.
        database: The name of the database.
        search_path: Where unqualified tables are looked up.
        is_read_only: Transactions are read only by default.
        can_create_schema: May create schema `recon`.
        has_schema: Schema `recon` exists.
        can_use_schema: May use what is in it.
        clock_seconds: The server's clock, in seconds since 1970.
    """

    version: int
    version_name: str
    is_standby: bool
    role: str
    database: str
    search_path: str
    is_read_only: bool
    can_create_schema: bool
    has_schema: bool
    can_use_schema: bool
    clock_seconds: float


def describe_server(connection: Connection) -> Server:
    """What kind of server this is."""
    return Server(**connection.execute(statement("describe_server")).mappings().one())


def describe_table(connection: Connection, name: str) -> Table | None:
    """The table that search_path finds under this name, or None."""
    return describe_tables(connection, name).get(name)


def describe_tables(connection: Connection, *names: str) -> dict[str, Table]:
    """The tables that search_path finds under these names; others are left out."""
    rows = connection.execute(statement("describe_tables"), {"table_names": list(names)}).mappings()
    return {row["wanted"]: _table(row) for row in rows}


def _table(row: Mapping[Any, Any]) -> Table:
    columns: dict[str, dict[str, Any]] = row["columns"] or {}
    return Table(
        wanted=row["wanted"],
        name=row["name"],
        kind=row["kind"],
        types={column: facts["type"] for column, facts in columns.items()},
        digits={column: facts["digits"] for column, facts in columns.items()},
        defaulted=frozenset(column for column, facts in columns.items() if facts["has_default"]),
        unique_keys=tuple(frozenset(key) for key in row["unique_keys"]),
        leading_index_columns=frozenset(row["leading_index_columns"]),
        period_index_without_customer=row["period_index_without_customer"],
        checked_columns=frozenset(row["checked_columns"]),
        row_security_active=row["row_security_active"],
        unrestricted_commands=frozenset(row["unrestricted_commands"]),
        restrictive_policy=row["restrictive_policy"],
        foreign_part=row["foreign_part"],
        heir=row["heir"],
        finds_periods=row["finds_periods"],
        can_select=row["can_select"],
        can_insert=row["can_insert"],
        can_delete=row["can_delete"],
        updatable_columns=frozenset(row["updatable_columns"]),
    )
