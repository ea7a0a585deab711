"""How each column of the log is kept in files: exactly, in a type that programs know where it holds every value of it.

Invariant: what Arrow cannot hold exactly is kept as text, as Postgres prints it: infinite times, NaN, numbers of more
than 38 digits, and each type that is not listed here. Columns that this code knows nothing of are kept too.
"""

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.store.postgres.statements import labelled, with_name

COUNTED = "recon_counted"
"""The column of the files that says whether an event counted; no column of the log may have its name."""

MOST_DIGITS = 38
"""Of a decimal that Arrow and the engines hold."""

# The columns of the log, in their order, each quoted, with its type; of a domain the type below it.
# Index: the catalog's own.
_LOG_COLUMNS = labelled(
    "log_columns",
    """
    select attribute.attname::text as name, quote_ident(attribute.attname) as quoted,
        coalesce(base.typname, type.typname)::text as type_name,
        coalesce(text_order.collisdeterministic, false) as is_equal_by_bytes
    from pg_attribute as attribute
    join pg_type as type on type.oid = attribute.atttypid
    left join pg_type as base on base.oid = nullif(type.typbasetype, 0)
    left join pg_collation as text_order on text_order.oid = attribute.attcollation
    where attribute.attrelid = to_regclass('billing_usage_events')
        and attribute.attnum > 0
        and not attribute.attisdropped
    order by attribute.attnum
    """,
)
_PLAIN = {"int2": "smallint", "int4": "integer", "int8": "bigint", "bool": "boolean", "float4": "real",
          "float8": "double precision", "bytea": "bytea"}  # fmt: skip
_TEXTS = ("text", "varchar")
_MOMENTS = {"timestamptz": "timestamptz", "timestamp": "timestamp", "date": "date"}


@dataclass(frozen=True)
class Column:
    """A column of the log.

    Attributes:
        name: Its name.
        quoted: The same in SQL.
        type_name: Of Postgres.
        is_equal_by_bytes: Equal texts in it are the same, byte for byte.
        scale: Of a numeric: the most digits after the point; else None.
        is_text: Kept as text, as Postgres prints it.
    """

    name: str
    quoted: str
    type_name: str
    is_equal_by_bytes: bool = False
    scale: int | None = None
    is_text: bool = False

    @property
    def selected(self) -> str:
        """As it is read from Postgres."""
        if self.type_name == "bpchar":  # a cast to text would take its blanks
            return f"case when event.{self.quoted} is not null then concat(event.{self.quoted}) end as {self.quoted}"
        kept = "text" if self.is_text else {**_PLAIN, **_MOMENTS}.get(self.type_name, "text")
        return f"event.{self.quoted}::{kept} as {self.quoted}"

    @property
    def decimals(self) -> int | None:
        """The digits after the point of what is kept as a decimal, or None."""
        return None if self.is_text else self.scale

    @property
    def is_number(self) -> bool:
        """Whether its digits have to be measured."""
        return self.type_name == "numeric"

    @property
    def is_moment(self) -> bool:
        """Whether it may be infinite."""
        return self.type_name in _MOMENTS


def log_columns(connection: Connection) -> tuple[Column, ...]:
    """The columns of the log as the catalog has them; in a transaction."""
    return tuple(
        Column(row.name, row.quoted, row.type_name, row.is_equal_by_bytes and row.type_name in _TEXTS)
        for row in connection.execute(_LOG_COLUMNS)
    )


def measured(connection: Connection, columns: tuple[Column, ...], which: str) -> Any:
    """What is in the rows of a month: the tables that they are in, and of times and numbers what they hold.

    Args:
        connection: In a transaction.
        columns: Of the log.
        which: The rows, as a condition.

    Returns:
        One row: `tables`, their oids, and for column N `finite_N`, or `scale_N` and `most_N`.
    """
    of_table, asked = ["event.tableoid::bigint as relation"], ["array_agg(relation order by relation) as tables"]
    for index, column in enumerate(columns):
        if column.is_moment:
            of_table.append(f"min(event.{column.quoted}) as least_{index}, max(event.{column.quoted}) as most_{index}")
            within = f"min(least_{index}) > '4000-01-01 BC' and max(most_{index}) < '200000-01-01'"
            asked.append(f"coalesce({within}, true) as finite_{index}")
        elif column.is_number:
            of_table.append(f"max(scale(event.{column.quoted})) as scale_{index}")
            of_table.append(f"max(abs(event.{column.quoted})) as most_{index}")
            asked.append(f"coalesce(max(scale_{index}), 0) as scale_{index}")
            asked.append(f"coalesce(max(most_{index}), 0)::text as most_{index}")
    # By table, so that nothing of the month is sorted.
    rows = f"select {', '.join(of_table)} from billing_usage_events as event where {which} group by event.tableoid"  # noqa: S608 - names are quoted
    sql = f"select {', '.join(asked)} from ({rows}) as of_table"  # noqa: S608 - names are quoted
    return connection.exec_driver_sql(with_name("measure_archived_month", sql.replace("%", "%%"))).one()


def kept(columns: tuple[Column, ...], found: Any) -> tuple[Column, ...]:
    """How columns are kept whose values are as `measured` says."""
    made: list[Column] = []
    for index, column in enumerate(columns):
        if column.is_moment:
            made.append(replace(column, is_text=not getattr(found, f"finite_{index}")))
        elif column.is_number:
            scale: int = getattr(found, f"scale_{index}")
            whole = str(getattr(found, f"most_{index}")).partition(".")[0]
            fits = whole.isdigit() and len(whole) + scale <= MOST_DIGITS
            made.append(replace(column, scale=scale, is_text=not fits))
        else:
            made.append(column)
    return tuple(made)
