"""Answers that are JSON and not Stripe's API's, that never end, or that send a customer's id elsewhere."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.parity.windows import Window
from recon_pipeline.faces.demo.fake_stripe import KEY, METER
from recon_pipeline.providers import stripe
from recon_pipeline.providers.pace import Pace
from recon_pipeline.providers.protocol import NoAnswerError, ProviderError, RefusedCustomerError
from recon_pipeline.providers.stripe import ATTEMPTS, StripeMeters
from recon_pipeline_tests.parity.comparing import Application

NOON = datetime(2025, 5, 20, 12, 30, tzinfo=UTC)
DAY = timedelta(days=1)
WINDOW = Window(NOON, NOON + DAY)
Handle = Callable[[BaseHTTPRequestHandler], None]


def sends(body: str, status: int = 200, **headers: str) -> Handle:
    """What answers so."""

    def handle(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body.encode())

    return handle


@contextmanager
def answering(handle: Handle, calls: list[str]) -> Iterator[StripeMeters]:
    """The meters of a server that answers each call so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            calls.append(self.path)
            handle(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    waited: list[float] = []
    pace = Pace(calls_per_second=1_000_000, now=lambda: sum(waited), sleep=waited.append)
    try:
        yield StripeMeters(KEY, f"http://127.0.0.1:{server.server_port}", pace)
    finally:
        server.shutdown()
        server.server_close()


def row(value: str, start: str = "1747744200") -> str:
    """A page of one sum."""
    return f'{{"data": [{{"id": "a", "aggregated_value": {value}, "start_time": {start}}}], "has_more": false}}'


@pytest.mark.parametrize(
    "body",
    [
        *("[]", "{}", "null", "1", '"x"', '{"data": null}', '{"data": [], "has_more": true}'),
        *(row(value) for value in ("NaN", "-Infinity", "null", '"12"', "true", "[]", "1e99999999", "1e31", "1e-31")),
        *(row("1", start) for start in ("null", "1e20", '"soon"')),
        row("1").replace("false", "true"),
    ],
)
def test_sums_that_are_not_as_the_api_shows_them_refuse_that_customer_in_one_sentence(body: str) -> None:
    calls: list[str] = []
    with answering(sends(body), calls) as meters, pytest.raises(RefusedCustomerError) as refused:
        meters.total(METER, "cus_1", WINDOW)
    assert "is not an answer of Stripe's API: " in refused.value.what
    assert KEY not in str(refused.value)
    assert len(calls) <= 2, "a page that comes again is not read for ever"


def test_a_customer_whose_sums_cannot_be_read_stops_none_of_the_others(app: Application) -> None:
    for customer in ("a", "b", "c"):
        app.use(customer, 5, NOON)
    answer = app.stripe.answer

    def odd(path: str, given: dict[str, str]) -> dict[str, Any]:
        return {} if given.get("customer") == "b" else answer(path, given)

    app.stripe.answer = odd  # pyright: ignore[reportAttributeAccessIssue]
    passed = app.compare(NOON + DAY)
    assert (passed.compared, passed.refused, passed.is_done) == (3, 1, True)


@pytest.mark.parametrize("body", ["[]", "{}", "null", '{"status": "active", "default_aggregation": null}'])
def test_a_meter_that_is_not_as_the_api_shows_it_is_said_to_be_so(body: str) -> None:
    with answering(sends(body), []) as meters, pytest.raises(ProviderError) as failed:
        meters.meter(METER)
    assert "is not an answer of Stripe's API: " in failed.value.what


@pytest.mark.parametrize(
    "body",
    [
        *("{}", "[]", '{"data": [{"id": "e"}], "next_page_url": null}', '{"data": [{"id": "evt", "type": "'),
        '{"data": [], "next_page_url": "https://elsewhere.example/v2/core/events"}',
        '{"data": [], "next_page_url": "/v2/core/events?page=2"}',
    ],
)
def test_error_reports_that_cannot_be_read_are_an_error_and_their_pages_end(body: str) -> None:
    calls: list[str] = []
    with answering(sends(body), calls) as meters, pytest.raises(ReconError):
        meters.rejections(METER)
    assert len(calls) <= ATTEMPTS


def test_an_error_whose_body_is_not_an_error_of_the_api_is_an_error_of_ours() -> None:
    with answering(sends('{"error": "nope"}', 404), []) as meters, pytest.raises(ReconError):
        meters.total(METER, "cus_1", WINDOW)


def test_a_page_of_a_proxy_is_cut_to_what_a_person_reads() -> None:
    with answering(sends("<html>" + "x" * 100_000), []) as meters, pytest.raises(NoAnswerError) as failed:
        meters.total(METER, "cus_1", WINDOW)
    assert len(failed.value.what) < 500


def test_an_answer_that_sends_a_customers_id_to_another_host_is_not_followed() -> None:
    elsewhere: list[str] = []
    with answering(sends(row("9")), elsewhere) as other:
        handle = sends("", 302, Location=f"{other.url}/v1?customer=cus_1")
        with answering(handle, []) as meters, pytest.raises(NoAnswerError):
            meters.total(METER, "cus_1", WINDOW)
    assert elsewhere == []


def test_an_answer_that_drips_for_ever_ends_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripe, "LONGEST_ANSWER_SECONDS", 0.2)
    is_over = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        while not is_over.wait(0.05):
            handler.wfile.write(b" ")
            handler.wfile.flush()

    with answering(drip, []) as meters:
        with pytest.raises(NoAnswerError, match="TimeoutError"):
            meters.total(METER, "cus_1", WINDOW)
        is_over.set()
