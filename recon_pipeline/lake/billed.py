"""What is billed of an event, as `sum_events.sql` writes it for the checksum of a seal, in DuckDB's SQL."""


def checksum(types: dict[str, str]) -> str:
    """Of one event: the first eight bytes of a SHA-256, as a number without a sign."""
    return f"('0x' || left(sha256({billed(types)}), 16))::ubigint"


def billed(types: dict[str, str], table: str | None = None) -> str:
    """What is billed of an event, as text: what `sum_events.sql` makes the checksum of."""

    def of(name: str) -> str:
        return f"{table}.{name}" if table else name

    texts = [
        f"strlen({of(name)}::varchar), ':', {of(name)}"
        for name in ("request_id", "gateway_customer_id", "gateway_name", "usage_type")
    ]
    times = [_epoch(of(name), types[name]) for name in ("period_start", "period_end", "event_timestamp")]
    quantity = f"{of('quantity')}::varchar"
    if not types["quantity"].endswith("INT") and types["quantity"] != "INTEGER":
        trimmed = f"rtrim(rtrim({quantity}, '0'), '.')"
        quantity = f"case when contains({quantity}, '.') then {trimmed} else {quantity} end"
    return f"concat({', '.join(texts)}, ';', {times[0]}, ';', {times[1]}, ';', {quantity}, ';', {times[2]})"


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
