"""Events on their way to the log are what was read, to the last character and microsecond."""

import gc
import sys
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from recon_pipeline.core.backfill.rows import Reading
from recon_pipeline.core.event_identity import EventIdentity, parse_event_identity
from recon_pipeline.store.backfill.read_ahead import read_ahead
from recon_pipeline.store.backfill.staging import staged_lines

AT = datetime(2025, 5, 17, 12, tzinfo=UTC)
MAY = (datetime(2025, 5, 1, tzinfo=UTC), datetime(2025, 6, 1, tzinfo=UTC))
UNESCAPED = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}
TEXTS = st.text(st.sampled_from('a\\\t\n\rü"{'), max_size=5)
INSTANTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001
ORDINAL, ID, REQUEST_ID, METADATA, QUANTITY, START, END, TIMESTAMP, IS_FIRST = 0, 1, 5, 6, 7, 8, 9, 10, 11


def event(request_id: str = "r", timestamp: datetime = AT, metadata: str = "{}", **others: object) -> Reading:
    read = Reading(1, (), "stripe", "c", "remote_commands", request_id, 1, timestamp, MAY, metadata)
    return read._replace(**others)  # pyright: ignore[reportArgumentType]


def staged(readings: Sequence[Reading], identity: EventIdentity | None = None) -> list[list[str]]:
    lines = staged_lines(0, readings, identity or EventIdentity())
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in lines)
    return [line[:-1].split("\t") for line in lines]


def unescaped(cell: str) -> str:
    found, rest = "", cell
    while rest:
        taken = 2 if rest[0] == "\\" else 1
        found, rest = found + UNESCAPED.get(rest[:taken], rest[:taken]), rest[taken:]
    return found


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5))
def test_each_text_is_staged_as_it_was_read_whatever_its_neighbours_are(texts: list[tuple[str, str]]) -> None:
    cells = staged([event(request_id, metadata=metadata) for request_id, metadata in texts])
    assert [(unescaped(one[REQUEST_ID]), unescaped(one[METADATA])) for one in cells] == texts


@given(INSTANTS, INSTANTS, INSTANTS)
def test_each_instant_is_staged_to_the_microsecond(timestamp: datetime, start: datetime, end: datetime) -> None:
    (cells,) = staged([event(timestamp=timestamp, period=(start, end))])
    written = [datetime.fromisoformat(cells[at]) for at in (TIMESTAMP, START, END)]
    assert written == [timestamp, start, end]


def test_quantities_are_staged_with_all_their_digits() -> None:
    quantities = (1, 2**63, Decimal("0.10"), Decimal("-12345678901234567890.5"))
    assert [one[QUANTITY] for one in staged([event(quantity=one) for one in quantities])] == [*map(str, quantities)]


def test_what_is_no_event_is_not_staged_and_the_others_keep_their_numbers() -> None:
    rejected, without_period = event(reasons=("why",)), event(period=None)
    cells = staged([rejected, event("a"), without_period, event("b")])
    assert [(one[ORDINAL], one[REQUEST_ID]) for one in cells] == [("1", "a"), ("3", "b")]
    assert staged([rejected]) == []


def test_each_staged_event_has_a_random_uuid_of_its_own() -> None:
    ids = [uuid.UUID(one[ID]) for one in staged([event()] * 500)]
    assert len({*ids}) == 500
    assert {(one.version, one.variant) for one in ids} == {(4, uuid.RFC_4122)}


def test_the_first_event_of_each_identity_is_marked() -> None:
    later = AT + timedelta(seconds=2)
    readings = [event("a"), event("a", later), event("b"), event("a", gateway_customer_id="d")]
    marked = {
        "gateway_name,request_id": "tftf",
        "gateway_name,request_id,gateway_customer_id": "tftt",
        "gateway_name,request_id,period_start,period_end": "tftf",
        "gateway_name,request_id,event_timestamp": "tttf",
        "gateway_name,request_id,gateway_customer_id,event_timestamp": "tttt",
    }
    for identity, firsts in marked.items():
        cells = staged(readings, parse_event_identity(identity))
        assert "".join(one[IS_FIRST] for one in cells) == firsts, identity


def test_a_process_that_has_read_ahead_is_as_it_was_before() -> None:
    before = gc.get_threshold(), gc.get_freeze_count(), sys.getswitchinterval()
    assert list(read_ahead(iter("abc"))) == ["a", "b", "c"]
    assert (gc.get_threshold(), gc.get_freeze_count(), sys.getswitchinterval()) == before
