"""One pass of the comparison with a provider's meters: the keys that are due, the most urgent first, until time is up.

Invariant: it only reads. A provider that does not answer ends the pass, which says so; a customer that is refused ends
nothing. Knows no Dagster. Each key is recorded as soon as it is compared, so that a pass that is killed goes on where
it was: the next one takes only what is still due.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection

from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.parity.classes import Circumstances, Compared, LogFigure, NamedRejection, added, classify
from recon_pipeline.core.parity.metering import GATEWAY_CUSTOMER
from recon_pipeline.core.parity.narrowing import Sides
from recon_pipeline.core.parity.windows import Window, before, to_minute
from recon_pipeline.providers.pace import CALLS_PER_SECOND
from recon_pipeline.providers.protocol import (
    Meters,
    NoAnswerError,
    NotAllowedError,
    ProviderError,
    RefusedCustomerError,
)
from recon_pipeline.store.log.decision import decision
from recon_pipeline.store.parity.customers import require_customer_column
from recon_pipeline.store.parity.keys import ComparedKey, ParityKey, Turn, keys_to_compare, note_compared
from recon_pipeline.store.parity.news import look_for_news
from recon_pipeline.store.parity.rejected import named_events
from recon_pipeline.store.parity.sending import Sending
from recon_pipeline.store.parity.sent import Span, sent_in
from recon_pipeline.store.parity.sharing import mark_listed
from recon_pipeline.store.postgres.database import BillingDatabase

DUE_KEYS = 50_000
"""The most that are looked up and summed at once: nearly as many as a pass asks for. Each look reads all keys, and most
pages of a log whose customers are scattered. A key takes some 1.3 kB of memory."""

LONGEST_PASS = timedelta(minutes=50)
"""The next pass begins an hour later."""

LONGEST_LOOK_MS = 5 * 60 * 1_000
"""For which a pass waits before it records or marks a key: another one that looks for news locks what it marks."""

NEWS_COME_FIRST = 0.8
"""Of the time of a pass. After that come keys that wait for long, so that none waits for ever."""


@dataclass(frozen=True)
class Passed:
    """What a pass did.

    Attributes:
        compared: Keys that were due and compared.
        refused: Of these, customers that the provider refused.
        is_done: No key is left that is due.
        ended_because: Why it ended before; empty if it did not.
        rejections_unknown_because: Why error reports could not be read; empty if they were.
    """

    compared: int = 0
    refused: int = 0
    is_done: bool = False
    ended_because: str = ""
    rejections_unknown_because: str = ""


@dataclass(frozen=True)
class Comparison:
    """What is compared with what.

    Attributes:
        database: With the log.
        sending: The usage, and how it is reported.
        meters: Of the provider.
        lag: How long an event may take from the log to the meter's sums.
        clock: Aware instants; the provider's and ours are taken to agree to a minute.
        longest: After which time it ends; what is left is for the next one.
    """

    database: BillingDatabase
    sending: Sending
    meters: Meters
    lag: timedelta
    clock: Callable[[], datetime]
    longest: timedelta = LONGEST_PASS

    def run(self) -> Passed:
        """Compare the keys that are due.

        Raises:
            ReconError: The meter cannot be compared, the log cannot be trusted, or the database failed.
        """
        began = self.clock()
        try:
            self._require_comparable()
            codes, unknown = self._rejection_codes()
        except NoAnswerError as error:
            return Passed(ended_because=error.what)
        with self.database.connection() as connection, decision(connection) as tables:
            require_customer_column(connection, self.sending.usage, self.sending.metering)
            look_for_news(connection, tables, self.sending, began=began)
            rejections = named_events(connection, self.sending, codes)
        compared = refused = 0
        for key in self._due_keys(began):
            if self.clock() - began > self.longest:
                ended = f"{self.longest.seconds // 60} minutes are over; the next pass goes on."
                return Passed(compared, refused, ended_because=ended, rejections_unknown_because=unknown)
            try:
                of_key = [one for customer in key.together for one in rejections.get(customer, ())]
                one = self._compared(key, tuple(of_key))
            except ProviderError as error:
                return Passed(compared, refused, ended_because=error.what, rejections_unknown_because=unknown)
            with self._recording() as connection:
                note_compared(connection, self.sending, one)
            compared += 1
            refused += one.error is not None
        return Passed(compared, refused, is_done=True, rejections_unknown_because=unknown)

    def _require_comparable(self) -> None:
        meter = self.meters.meter(self.sending.metering.meter)
        if meter.why_not:
            raise ReconError(
                f"The meter {meter.id} cannot be compared with sums of the log: {meter.why_not}.",
                fix=f"Set the meter of {self.sending.usage.usage_type} in RECON_STRIPE_METERS to an active one "
                "with the formula sum and no event time window.",
            )

    def _rejection_codes(self) -> tuple[dict[str, str], str]:
        try:
            found = self.meters.rejections(self.sending.metering.meter)
        except (NotAllowedError, RefusedCustomerError) as error:
            return {}, error.what
        return {one.identifier: one.code for one in found}, ""

    def _due_keys(self, began: datetime) -> Iterator[ParityKey]:
        while True:
            now = self.clock()
            later = began + NEWS_COME_FIRST * self.longest
            news_come_first = now < later
            left = (later if news_come_first else began + self.longest) - now
            in_time = math.ceil(left.total_seconds() * CALLS_PER_SECOND)  # what is summed beyond that is summed again
            turn = Turn(began, now, news_come_first, max(1, min(in_time, DUE_KEYS)))
            with self.database.connection() as connection, decision(connection) as tables:
                due = keys_to_compare(connection, tables, self.sending, turn)
            if not due:
                return
            for key in due:
                if news_come_first and self.clock() >= later:
                    break
                yield key

    def _compared(self, key: ParityKey, rejections: tuple[NamedRejection, ...]) -> ComparedKey:
        try:
            return self._compare(key, rejections)
        except RefusedCustomerError as error:
            return ComparedKey(key, key.read_at, key.sent.log.units, None, error=error.what)

    def _compare(self, key: ParityKey, rejections: tuple[NamedRejection, ...]) -> ComparedKey:
        customer, meter, sent = self._provider_customer(key), self.sending.metering.meter, key.sent.log
        if customer is None:
            return ComparedKey(key, key.read_at, sent.units, None)
        total = self.meters.total(meter, customer, key.window) if key.window else Decimal(0)
        if total == sent.units and not key.shared.customers:
            return ComparedKey(key, key.read_at, sent.units, total)
        read_at = self.clock()
        settled_before = read_at - self.lag
        named = None if self.sending.metering.customer == GATEWAY_CUSTOMER else customer

        def logged(windows: Sequence[Window]) -> Sequence[LogFigure]:
            spans = [Span(one, window, named) for window in windows for one in key.together]
            with self.database.connection() as connection, decision(connection) as tables:
                found = sent_in(connection, tables, self.sending, spans, settled_before=settled_before)
            count = len(key.together)
            return [added([one.log for one in found[n : n + count]]) for n in range(0, len(found), count)]

        sides = Sides(
            total=lambda asked: self.meters.total(meter, customer, asked),
            grouped=lambda asked, unit: self.meters.grouped(meter, customer, asked, unit),
            logged=logged,
        )
        until = to_minute(settled_before)
        log, settled_log = logged([key.window, before(key.window, until)])
        whole = Compared(key.window, log, total)
        if not whole.difference:
            return ComparedKey(key, read_at, log.units, total)
        if key.shared.listed_with is not None:
            with self._recording() as connection:
                period = key.period_start, key.period_end
                mark_listed(connection, self.sending, key.shared.listed_with, period, now=self.clock())
            return ComparedKey(key, read_at, log.units, total)
        settled = sides.part(whole, settled_log, until)
        found = sides.found(whole, settled)
        circumstances = Circumstances(
            now=self.clock(),
            settled_before=settled_before,
            final_at=key.period_end + timedelta(hours=self.sending.metering.final_hours),
            rejections=rejections,
            around=sides.around(settled, key.window, until) if found != (whole,) else (),
        )
        differences = classify([one for one in found if one.difference], circumstances)
        return ComparedKey(key, read_at, log.units, total, differences)

    def _recording(self) -> AbstractContextManager[Connection]:
        return self.database.transaction(lock_timeout_ms=LONGEST_LOOK_MS)

    def _provider_customer(self, key: ParityKey) -> str | None:
        """Whom to ask about; None if nobody was named, because nothing was ever used."""
        if self.sending.metering.customer == GATEWAY_CUSTOMER:
            return key.customer
        sent = key.sent
        if sent.provider_customer_count > 1 or (sent.provider_customer is None and sent.log.units):
            count = "more than one" if sent.provider_customer_count > 1 else "no"
            raise RefusedCustomerError(
                f"Its events name {count} customer of the provider.",
                fix="Correct customer in RECON_STRIPE_METERS: recon parity probe --customer ID finds it.",
            )
        return sent.provider_customer
