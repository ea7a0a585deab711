"""A row says the same whatever rows it comes with, and whether it comes as a row or by column."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from recon_pipeline.core.backfill.columns import Coded, Columns, Row, Unreadable
from recon_pipeline.core.backfill.mapping import parse_mapping
from recon_pipeline.core.backfill.quantities import QuantityRange
from recon_pipeline.core.backfill.rows import Reading, RowReader
from recon_pipeline.core.scope import parse_scope

_READER = RowReader(
    parse_mapping(
        {
            "gateway_name": "gateway",
            "gateway_customer_id": "customer",
            "usage_type": "type",
            "request_id": "request",
            "primary_key": "key",
            "quantity": "units",
            "event_timestamp": "at",
            "period_start": "from",
            "period_end": "to",
        }
    ),
    source="audit",
    batch_id="b",
    quantity_range=QuantityRange.of("integer"),
    scope=parse_scope("stripe:remote_commands"),
)
_MOMENTS = st.sampled_from(
    [datetime(2025, 5, day, hour, tzinfo=UTC) for day in (1, 17, 31) for hour in (0, 12)]
    + [datetime(2025, 5, 17, 12), datetime(2025, 5, 17, 14, tzinfo=timezone(timedelta(hours=2)))]  # noqa: DTZ001
)
_EQUAL_BUT_NOT_THE_SAME = st.sampled_from([1, True, 1.0, Decimal(1), "1", 0, False, -0.0, None, "", float("nan")])
_VALUES = {
    "gateway": st.just("stripe") | st.sampled_from(["paddle", "", None]),
    "customer": st.sampled_from(["c1", "c2", " c", "c\0"]) | _EQUAL_BUT_NOT_THE_SAME,
    "type": st.just("remote_commands"),
    "request": st.sampled_from(["r1", "", None]) | _EQUAL_BUT_NOT_THE_SAME,
    "key": _EQUAL_BUT_NOT_THE_SAME,
    "units": st.integers(-1, 3) | _EQUAL_BUT_NOT_THE_SAME,
    "at": _MOMENTS,
    "from": _MOMENTS,
    "to": _MOMENTS | st.none(),
    "left": _EQUAL_BUT_NOT_THE_SAME | st.sampled_from(["\0", "\ud800", "ü", [1, {"a": "\0"}]]),
}


@settings(deadline=None)
@given(rows=st.lists(st.fixed_dictionaries(_VALUES), min_size=1, max_size=12), odd_name=st.booleans())
def test_a_row_gives_the_same_event_or_reasons_alone_among_others_and_by_column(
    rows: list[dict[str, object]], odd_name: bool
) -> None:
    if odd_name:
        rows = [{**row, "le\0ft": 1} for row in rows]
    lines = range(5, 5 + len(rows))
    alone = [_READER.read([line], [row])[0] for line, row in zip(lines, rows, strict=True)]
    columns = Columns({name: [row[name] for row in rows] for name in rows[0]})
    assert said(_READER.read(lines, columns)) == said(alone)
    by_dictionary = Columns({name: coded([row[name] for row in rows]) for name in rows[0]})
    assert said(_READER.read(lines, by_dictionary)) == said(alone)
    assert said(_READER.read(lines, rows)) == said(alone)
    among_others: list[Row | Unreadable] = [*rows, Unreadable("?", "this is not JSON"), {"other": 1}]
    read = _READER.read(range(5, 7 + len(rows)), among_others)
    assert read[-2].reasons == ("this is not JSON",)
    assert said(read[: len(rows)]) == said(alone)


def coded(values: list[object]) -> Coded:
    """The values with a dictionary, as columns of files have one: of a column, not of a type."""
    written = [(type(value), repr(value)) for value in values]
    distinct = list(dict(zip(written, values, strict=True)).items())
    keys = [key for key, _ in distinct]
    return Coded([value for _, value in distinct], [keys.index(key) for key in written])


def said(readings: list[Reading]) -> list[Reading | tuple[str, ...]]:
    """Events, and of what is none the reasons."""
    return [reading.reasons or reading for reading in readings]
