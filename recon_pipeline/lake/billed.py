"""What is billed of an event, as `sum_events.sql` writes it for the checksum of a seal, in DuckDB's SQL."""

from collections.abc import Sequence

REPEATED = ("gateway_name", "usage_type", "period_start", "period_end")
"""The columns that many events share, so that their part of the text can be made once for all of these."""


def checksum(text: str) -> str:
    """Of one event: the first eight bytes of the SHA-256 of what is billed of it, as a number without a sign."""
    return f"('0x' || left(sha256({text}), 16))::ubigint"


def billed(types: dict[str, str], table: str, *, repeated: str | None = None) -> str:
    """What is billed of an event, as text: what `sum_events.sql` makes the checksum of.

    Args:
        types: Of the columns.
        table: Which has them.
        repeated: What `billed_of_many` said of the event, as an expression; None: it is said here.
    """
    quantity = f"{table}.quantity::varchar"
    if not types["quantity"].endswith("INT") and types["quantity"] != "INTEGER":
        trimmed = f"rtrim(rtrim({quantity}, '0'), '.')"
        quantity = f"case when contains({quantity}, '.') then {trimmed} else {quantity} end"
    names = f"{_name(f'{table}.request_id')}, {_name(f'{table}.gateway_customer_id')}"
    happened = _epoch(f"{table}.event_timestamp", types["event_timestamp"])
    return f"concat({names}, {repeated or billed_of_many(types, table)}, ';', {quantity}, ';', {happened})"


def billed_of_many(types: dict[str, str], table: str) -> str:
    """The part of that text which is of the columns in `REPEATED`."""
    names = f"{_name(f'{table}.gateway_name')}, {_name(f'{table}.usage_type')}"
    start, end = (_epoch(f"{table}.{name}", types[name]) for name in ("period_start", "period_end"))
    return f"concat({names}, ';', {start}, ';', {end})"


def one_event(identity: Sequence[str]) -> str:
    """Whether a row of `log` and one of `archived` are one event, as a condition of equalities that can be hashed.

    One of which a part of the identity is null has no twin by it: its id tells which it is.

    Args:
        identity: The columns that name an event.
    """
    same = [f'log."{one}"::varchar is not distinct from archived."{one}"::varchar' for one in identity]

    def where_nameless(table: str) -> str:
        is_nameless = " or ".join(f'{table}."{one}" is null' for one in identity)
        return f"case when {is_nameless} then {table}.id::varchar else '' end"

    return " and ".join([*same, f"{where_nameless('log')} = {where_nameless('archived')}"])


def _name(column: str) -> str:
    return f"strlen({column}::varchar), ':', {column}"


def _epoch(name: str, type_name: str) -> str:
    """Seconds since 1970, as Postgres prints them."""
    if type_name != "VARCHAR":
        return _seconds(name)
    finite = _seconds(f"{name}::timestamptz")
    return f"case {name} when 'infinity' then 'Infinity' when '-infinity' then '-Infinity' else {finite} end"


def _seconds(moment: str) -> str:
    # Text of whole microseconds, and not a division of decimals, which takes half of the time of a whole archive.
    after_1970 = f"concat(epoch_us({moment}) // 1000000, '.', right(epoch_us({moment})::varchar, 6))"
    before = f"(epoch_us({moment})::decimal(19, 0) * 0.000001::decimal(6, 6))::varchar"
    return f"case when {moment} is not null then if(epoch_us({moment}) >= 1000000, {after_1970}, {before}) end"
