"""A Stripe of our own on loopback, with billing meters, for the real SDK. What it assumes: fake_stripe.md beside it.

It keeps one meter's events, answers as Stripe's API does, and has a clock that is set. Demo and tests use it.
"""

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

METER = "mtr_test_commands"
KEY = "rk_test_51hunter2secret"
PAST, FUTURE = timedelta(days=35), timedelta(minutes=5)
UNIQUE_FOR = timedelta(hours=24)
_LENGTHS = {"hour": 3_600, "day": 86_400}


class RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


@dataclass
class FakeStripe:
    """One account with one meter.

    Attributes:
        now: The clock.
        aggregates_after: How long an event takes until summaries have it.
        port: On loopback.
        meter: As the API shows it.
        customers: That exist; None: any. Events of others are rejected without a word.
        may_read_summaries: Whether the key may read what customers used.
        may_read_events: Whether the key may list error reports.
        fails: What the next calls are answered with.
        calls: Paths of calls, in order.
    """

    now: datetime
    aggregates_after: timedelta = timedelta(0)
    port: int = 0
    meter: dict[str, Any] = field(default_factory=dict[str, Any])
    customers: set[str] | None = None
    may_read_summaries: bool = True
    may_read_events: bool = True
    fails: list[RefusedError] = field(default_factory=list[RefusedError])
    calls: list[str] = field(default_factory=list[str])
    page_rows: int = 100
    _events: dict[str, list[tuple[datetime, datetime, Decimal]]] = field(
        default_factory=lambda: defaultdict[str, list[tuple[datetime, datetime, Decimal]]](list)
    )
    _identifiers: dict[str, datetime] = field(default_factory=dict[str, datetime])
    _rejected: dict[str, list[str]] = field(default_factory=lambda: defaultdict[str, list[str]](list))

    def __post_init__(self) -> None:
        self.meter = {
            "id": METER,
            "object": "billing.meter",
            "event_name": "commands",
            "status": "active",
            "default_aggregation": {"formula": "sum"},
            "event_time_window": None,
        } | self.meter

    @property
    def url(self) -> str:
        """Of the API."""
        return f"http://127.0.0.1:{self.port}"

    def send(self, customer: str, value: int | str, timestamp: datetime, identifier: str) -> bool:
        """What `POST /v1/billing/meter_events` does; whether it was accepted as far as its sender knows."""
        seen = self._identifiers.get(identifier)
        if seen is not None and self.now - seen < UNIQUE_FOR:
            raise RefusedError(400, f"An event already exists with identifier {identifier}.")
        if timestamp < self.now - PAST:
            raise RefusedError(400, "timestamp_too_far_in_past")
        if timestamp > self.now + FUTURE:
            raise RefusedError(400, "timestamp_in_future")
        self._identifiers[identifier] = self.now
        if self.customers is not None and customer not in self.customers:
            self._rejected["meter_event_customer_not_found"].append(identifier)
            return True
        self._events[customer].append((timestamp, self.now, Decimal(value)))
        return True

    def reject(self, identifier: str, code: str = "meter_event_invalid_value") -> None:
        """Reject an event without a word to its sender, and report it."""
        self._identifiers[identifier] = self.now
        self._rejected[code].append(identifier)

    def answer(self, path: str, asked: dict[str, str]) -> dict[str, Any]:
        """The body of an answer."""
        self.calls.append(path)
        if self.fails:
            raise self.fails.pop(0)
        parts = path.strip("/").split("/")
        if parts[:3] == ["v1", "billing", "meters"] and len(parts) > 3 and parts[3] == METER:
            if len(parts) == 4:
                return self.meter
            self._require(self.may_read_summaries)
            return self._summaries(asked)
        if parts[:3] == ["v2", "core", "events"]:
            self._require(self.may_read_events)
            return self._reports(asked) if len(parts) == 3 else self._report()
        raise RefusedError(404, f"No such meter: '{parts[-1]}'")

    def _require(self, is_allowed: bool) -> None:
        if not is_allowed:
            raise RefusedError(403, f"The provided key '{KEY[:8]}***' does not have the required permissions.")

    def _summaries(self, asked: dict[str, str]) -> dict[str, Any]:
        for name in ("customer", "start_time", "end_time"):
            if name not in asked:
                raise RefusedError(400, f"Missing required param: {name}.")
        customer, unit = asked["customer"], asked.get("value_grouping_window")
        if self.customers is not None and customer not in self.customers:
            raise RefusedError(404, f"No such customer: '{customer}'")
        start, end = int(asked["start_time"]), int(asked["end_time"])
        for instant in (start, end):
            if instant % _LENGTHS.get(unit or "", 60):
                raise RefusedError(400, f"start_time and end_time must be aligned to {unit or 'minute'} boundaries")
        if start >= end:
            raise RefusedError(400, "start_time must be before end_time")
        sums = Counter[int]()
        length = _LENGTHS[unit] if unit else end - start
        for timestamp, received, value in self._events[customer]:
            at = int(timestamp.timestamp())
            if start <= at < end and received + self.aggregates_after <= self.now:
                sums[start + (at - start) // length * length] += value  # pyright: ignore[reportArgumentType]
        if not unit:
            sums[start] += 0
        rows = [
            {
                "id": f"mtrusg_{begun}",
                "object": "billing.meter_event_summary",
                "aggregated_value": value,
                "start_time": begun,
                "end_time": begun + length,
                "meter": METER,
            }
            for begun, value in sorted(sums.items(), reverse=True)
        ]
        after = [row["id"] for row in rows].index(asked["starting_after"]) + 1 if "starting_after" in asked else 0
        most = min(int(asked.get("limit", 10)), self.page_rows)
        return {"object": "list", "data": rows[after : after + most], "has_more": len(rows) > after + most}

    def _reports(self, asked: dict[str, str]) -> dict[str, Any]:
        if not self._rejected:
            return {"data": [], "next_page_url": None}
        if "page" not in asked:
            return {"data": [], "next_page_url": f"/v2/core/events?object_id={METER}&page=2"}
        return {
            "data": [{"id": "evt_1", "type": "v1.billing.meter.error_report_triggered"}, {"id": "evt_2", "type": "x"}],
            "next_page_url": None,
        }

    def _report(self) -> dict[str, Any]:
        kinds = [
            {
                "code": code,
                "error_count": len(identifiers),
                "sample_errors": [{"error_message": code, "request": {"identifier": one}} for one in identifiers],
            }
            for code, identifiers in self._rejected.items()
        ]
        return {"id": "evt_1", "data": {"reason": {"error_count": 1, "error_types": kinds}}}


@contextmanager
def fake_stripe(now: datetime, **options: Any) -> Iterator[FakeStripe]:
    """A running one."""
    stripe = FakeStripe(now, **options)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are sent apart, and the second would wait

        def do_GET(self) -> None:
            split = urlsplit(self.path)
            headers = dict[str, str]()
            try:
                if self.headers.get("Authorization") != f"Bearer {KEY}":
                    raise RefusedError(401, f"Invalid API Key provided: {self.headers.get('Authorization')}")
                asked = {name: values[-1] for name, values in parse_qs(split.query).items()}
                status, body = 200, stripe.answer(split.path, asked)
            except RefusedError as refused:
                status, headers = refused.status, refused.headers
                body = {"error": {"message": str(refused), "type": "invalid_request_error"}}
            sent = json.dumps(body, default=_number).replace('"<', "").replace('>"', "").encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(sent))}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stripe.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield stripe
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def _number(value: Any) -> str:
    """A sum as Stripe writes it: a JSON number with a point, digit by digit."""
    if isinstance(value, Decimal):
        return f"<{value}{'' if '.' in str(value) else '.0'}>"
    raise TypeError(type(value))
