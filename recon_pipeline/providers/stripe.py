"""Stripe's billing meters, by its SDK: read, and never written.

Invariant: bodies are read with numbers as Decimal, since the SDK makes floats of them (9007199254740993 comes back as
…992). The key is in no error, log or repr; what Stripe says of it is not repeated. Calls keep to the pace; a refusal
for too many calls, a lost connection and a failing server are tried again a few times, after what Retry-After says.
Where it says longer than a call may wait, Stripe is left alone until then.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from importlib.util import find_spec
from typing import Any, NoReturn

from recon_pipeline.core.errors import ConfigurationError, ReconError
from recon_pipeline.core.parity.windows import Unit, Window
from recon_pipeline.providers.deadline import in_time
from recon_pipeline.providers.pace import Pace, in_words, wait_seconds
from recon_pipeline.providers.protocol import (
    Meter,
    NoAnswerError,
    NotAllowedError,
    ProviderError,
    RefusedCustomerError,
    Rejection,
)
from recon_pipeline.providers.stripe_answers import (
    MisshapenError,
    after,
    as_documented,
    described,
    named,
    parsed,
    reports,
    summaries,
)

ATTEMPTS = 5
LONGEST_WAIT_SECONDS = 60.0
"""Of a call; if Stripe asks for longer, the comparison ends."""
LONGEST_ANSWER_SECONDS = 90.0
"""Of a call; somewhat longer than the SDK waits for a byte."""
SAID_CHARACTERS = 300
"""Of what Stripe says, in an error of ours: a page of a proxy has megabytes."""
PAGE_ROWS = 100
"""The most that Stripe puts on a page."""

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
            with self._reading(ProviderError, f"meter {meter}"):
                return described(meter, self._get(f"/v1/billing/meters/{meter}"))
        except RefusedCustomerError as error:
            raise ProviderError(
                f"Stripe has no meter {meter} for this key: {error.what}",
                changed=_NO_CHANGE,
                fix="Correct the meter in RECON_STRIPE_METERS; a key of a sandbox sees only the sandbox's meters.",
            ) from None

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
        read = set[str]()
        url: str | None = "/v2/core/events"
        parameters: dict[str, Any] = {"object_id": meter, "limit": PAGE_ROWS}
        with self._reading(RefusedCustomerError, "the error reports"):
            while url is not None:
                ids, url = reports(self._get(url, **parameters), read)
                for one in ids:
                    found += named(self._get(f"/v2/core/events/{one}"))
                parameters = {}
        return tuple(found)

    def _summaries(self, meter: str, customer: str, window: Window, **more: str) -> Iterator[tuple[datetime, Decimal]]:
        parameters: dict[str, Any] = {
            "customer": customer,
            "start_time": int(window.start.timestamp()),
            "end_time": int(window.end.timestamp()),
            "limit": PAGE_ROWS,
            **more,
        }
        last: str | None = None
        with self._reading(RefusedCustomerError, "this customer"):
            while True:
                page = self._get(f"/v1/billing/meters/{meter}/event_summaries", **parameters)
                yield from summaries(page)
                last = after(page, last)
                if last is None:
                    return
                parameters["starting_after"] = last

    @contextmanager
    def _reading(self, kind: type[ReconError], what: str) -> Iterator[None]:
        """Where answers about something are read: what is not of the API is an error of this kind."""
        try:
            yield
        except MisshapenError as error:
            raise kind(
                f"What {self.url} answers about {what} is not an answer of Stripe's API: {error}".replace(
                    self.key, "…"
                ),
                changed=_NO_CHANGE,
                fix="Check that RECON_STRIPE_URL is not set and that no proxy answers for Stripe; else ask Stripe.",
            ) from None

    def _get(self, path: str, **parameters: Any) -> dict[str, Any]:
        """The body of an answer, with numbers as Decimal."""
        import stripe  # noqa: PLC0415 - an extra, which nothing else needs

        for attempt in range(1, ATTEMPTS + 1):
            self._require_turn()
            self.pace.wait()
            try:
                with as_documented():
                    answer = in_time(
                        lambda: self._connected().raw_request("get", path, **parameters), LONGEST_ANSWER_SECONDS
                    )
            except (stripe.RateLimitError, stripe.APIConnectionError, stripe.APIError) as error:
                self.pace.hold(wait_seconds(error.headers or {}, attempt))
                if attempt == ATTEMPTS:
                    self._fail(error, path)
            except stripe.StripeError as error:
                self._fail(error, path)
            else:
                return parsed(answer.body)
        raise AssertionError("every attempt returns or raises")

    def _require_turn(self) -> None:
        seconds = self.pace.seconds_until_next
        if seconds > LONGEST_WAIT_SECONDS:
            raise NoAnswerError(
                f"Stripe asks to be left alone for {in_words(seconds)}.",
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
        """It goes to no other host, wherever an answer sends it; to loopback not even by a proxy."""
        import requests  # noqa: PLC0415 - comes with the SDK
        import stripe  # noqa: PLC0415

        session = requests.Session()
        session.max_redirects = 0
        session.trust_env = not self.url.startswith("http://")
        return stripe.RequestsClient(session=session)

    def _fail(self, error: Any, path: str) -> NoReturn:
        import stripe  # noqa: PLC0415

        said = str(error.user_message or error).partition("\n")[0].replace(self.key, "…")[:SAID_CHARACTERS]
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
            fix="Install recon-pipeline[stripe]; or unset RECON_STRIPE_PARITY, if it is set, to go on without it.",
        )
