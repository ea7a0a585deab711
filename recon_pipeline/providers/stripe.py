"""Stripe's billing meters, by its SDK: read, and never written.

Invariant: bodies are read with numbers as Decimal, since the SDK makes floats of them (9007199254740993 comes back as
…992). The key is in no error, log or repr; what Stripe says of it is not repeated. Calls keep to the pace; a refusal
for too many calls, a lost connection and a failing server are tried again a few times, after what Retry-After says.
Where it says longer than a call may wait, Stripe is left alone until then.
"""

import json
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from importlib.util import find_spec
from typing import Any, NoReturn

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.parity.windows import Unit, Window
from recon_pipeline.providers.pace import Pace
from recon_pipeline.providers.protocol import (
    Meter,
    NoAnswerError,
    NotAllowedError,
    ProviderError,
    RefusedCustomerError,
    Rejection,
)

ATTEMPTS = 5
LONGEST_WAIT_SECONDS = 60.0
"""Of a call; if Stripe asks for longer, the comparison ends."""
PAGE_ROWS = 100
"""The most that Stripe puts on a page."""

_REPORT = "v1.billing.meter.error_report_triggered"
_NO_CHANGE = "Nothing was changed; what was compared before stays recorded."


@dataclass
class StripeMeters:
    """The meters of the account that a key belongs to.

    Attributes:
        key: Restricted to reading meters and events.
        url: Of Stripe's API.
        pace: Of the calls.
    """

    key: str = field(repr=False)
    url: str
    pace: Pace = field(default_factory=Pace)
    _client: Any = field(default=None, init=False, repr=False)

    def meter(self, meter: str) -> Meter:
        """Describe a meter.

        Raises:
            ProviderError: Stripe does not answer, the key may not, or there is no such meter.
        """
        try:
            found = self._get(f"/v1/billing/meters/{meter}")
        except RefusedCustomerError as error:
            raise ProviderError(
                f"Stripe has no meter {meter} for this key: {error.what}",
                changed=_NO_CHANGE,
                fix="Correct the meter in RECON_STRIPE_METERS; a key of a sandbox sees only the sandbox's meters.",
            ) from None
        formula, time_window = found.get("default_aggregation", {}).get("formula"), found.get("event_time_window")
        faults = (
            f"it is {found.get('status')}" if found.get("status") != "active" else "",
            f"its formula is {formula}, not sum" if formula != "sum" else "",
            f"of each {time_window} it keeps only the newest event" if time_window else "",
        )
        return Meter(meter, found["event_name"], " and ".join(filter(None, faults)))

    def total(self, meter: str, customer: str, window: Window) -> Decimal:
        """What the meter has of a customer in a window, exactly; 0 where it has nothing.

        Raises:
            RefusedCustomerError: Stripe refuses this customer.
            ProviderError: Stripe does not answer, or the key may not.
        """
        return sum((value for _, value in self._summaries(meter, customer, window)), Decimal(0))

    def grouped(self, meter: str, customer: str, window: Window, unit: Unit) -> Mapping[datetime, Decimal]:
        """The same by hour or day, by its start.

        Raises:
            RefusedCustomerError: Stripe refuses this customer.
            ProviderError: Stripe does not answer, or the key may not.
        """
        return dict(self._summaries(meter, customer, window, value_grouping_window=unit))

    def rejections(self, meter: str) -> tuple[Rejection, ...]:
        """The events that error reports of the last 30 days name.

        Raises:
            NotAllowedError: The key may not read events.
            ProviderError: Stripe does not answer.
        """
        found: list[Rejection] = []
        url: str | None = "/v2/core/events"
        parameters: dict[str, Any] = {"object_id": meter, "limit": PAGE_ROWS}
        while url is not None:
            page = self._get(url, **parameters)
            for event in page["data"]:
                if event["type"] == _REPORT:
                    found += _named(self._get(f"/v2/core/events/{event['id']}"))
            url, parameters = page.get("next_page_url"), {}
        return tuple(found)

    def _summaries(self, meter: str, customer: str, window: Window, **more: str) -> Iterator[tuple[datetime, Decimal]]:
        parameters: dict[str, Any] = {
            "customer": customer,
            "start_time": int(window.start.timestamp()),
            "end_time": int(window.end.timestamp()),
            "limit": PAGE_ROWS,
            **more,
        }
        while True:
            page = self._get(f"/v1/billing/meters/{meter}/event_summaries", **parameters)
            for one in page["data"]:
                yield datetime.fromtimestamp(int(one["start_time"]), UTC), _exact(one["aggregated_value"])
            if not page.get("has_more"):
                return
            parameters["starting_after"] = page["data"][-1]["id"]

    def _get(self, path: str, **parameters: Any) -> dict[str, Any]:
        """The body of an answer, with numbers as Decimal."""
        import stripe  # noqa: PLC0415 - an extra, which nothing else needs

        for attempt in range(1, ATTEMPTS + 1):
            self._require_turn()
            self.pace.wait()
            try:
                answer = self._connected().raw_request("get", path, **parameters)
            except (stripe.RateLimitError, stripe.APIConnectionError, stripe.APIError) as error:
                self.pace.hold(_wait_seconds(error, attempt))
                if attempt == ATTEMPTS:
                    self._fail(error, path)
            except stripe.StripeError as error:
                self._fail(error, path)
            else:
                return json.loads(answer.body, parse_float=Decimal, parse_int=Decimal)
        raise AssertionError("every attempt returns or raises")

    def _require_turn(self) -> None:
        seconds = self.pace.seconds_until_next
        if seconds > LONGEST_WAIT_SECONDS:
            raise NoAnswerError(
                f"Stripe asks to be left alone for {_in_words(seconds)}.",
                changed=_NO_CHANGE,
                fix="Nothing, a later comparison goes on where this one ended. If it stays, ask Stripe for a higher "
                "rate limit, or find what else uses up the account's.",
            )

    def _connected(self) -> Any:
        if self._client is None:
            import stripe  # noqa: PLC0415

            stripe.enable_telemetry = False  # it would write a file into the home folder, and report the platform
            addresses: Any = dict.fromkeys(("api", "connect", "files", "meter_events"), self.url)
            self._client = stripe.StripeClient(
                self.key, base_addresses=addresses, max_network_retries=0, http_client=self._of_this_machine()
            )
        return self._client

    def _of_this_machine(self) -> Any:
        """For a Stripe on loopback, which no proxy of the environment reaches; else None: the SDK's own."""
        if not self.url.startswith("http://"):
            return None
        import requests  # noqa: PLC0415 - comes with the SDK
        import stripe  # noqa: PLC0415

        session = requests.Session()
        session.trust_env = False
        return stripe.RequestsClient(session=session)

    def _fail(self, error: Any, path: str) -> NoReturn:
        import stripe  # noqa: PLC0415

        said = str(error.user_message or error).partition("\n")[0].replace(self.key, "…")
        if isinstance(error, stripe.AuthenticationError):
            raise NotAllowedError(
                "Stripe does not accept the key in STRIPE_API_KEY.",
                changed=_NO_CHANGE,
                fix="Set STRIPE_API_KEY to a restricted key of the account that has the meters.",
            ) from None
        if isinstance(error, stripe.PermissionError):
            raise NotAllowedError(
                f"The key in STRIPE_API_KEY may not read {path.partition('?')[0]}.",
                changed=_NO_CHANGE,
                fix="Give the restricted key the right to read: Billing meters and meter events, and Events.",
            ) from None
        if isinstance(error, stripe.InvalidRequestError):
            raise RefusedCustomerError(
                f"Stripe refuses: {said}",
                changed=_NO_CHANGE,
                fix="Check that the log's customer is Stripe's (customer in RECON_STRIPE_METERS).",
            ) from None
        if isinstance(error, stripe.APIConnectionError):
            cause = type(error.__cause__ or error).__name__
            said = f"the connection to {self.url} failed ({cause})"
        raise NoAnswerError(
            f"Stripe did not answer after {ATTEMPTS} attempts: {said}",
            changed=_NO_CHANGE,
            fix="Nothing, the next comparison goes on where this one ended. See https://status.stripe.com.",
        ) from None


def require_stripe() -> None:
    """Refuse to go on without Stripe's SDK.

    Raises:
        ConfigurationError: It is not installed.
    """
    if find_spec("stripe") is None:
        raise ConfigurationError(
            "The comparison with Stripe needs Stripe's SDK, which is not installed.",
            fix="Install recon-pipeline[stripe], or unset RECON_STRIPE_PARITY.",
        )


def _exact(value: Decimal) -> Decimal:
    """A sum as it is; whole ones, which Stripe writes with a point, without it."""
    return Decimal(int(value)) if value == value.to_integral_value() else value


def _named(report: Mapping[str, Any]) -> Iterator[Rejection]:
    for kind in report.get("data", {}).get("reason", {}).get("error_types", ()):
        for example in kind.get("sample_errors", ()):
            yield Rejection(example["request"]["identifier"], kind["code"])


def _in_words(seconds: float) -> str:
    return f"{math.ceil(seconds):,} seconds" if math.isfinite(seconds) else "ever"


def _wait_seconds(error: Any, attempt: int) -> float:
    """What Retry-After says, else longer each time, and never the same for two clients."""
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    try:
        asked = float(headers.get("retry-after", ""))
    except ValueError:  # a date, which Stripe does not send, or nothing
        asked = 0.0
    growing = 0.5 * 2 ** (attempt - 1) * (1 + random.random())  # noqa: S311 - no secret
    return asked if asked > growing else growing  # and so not a number is none
