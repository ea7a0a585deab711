"""`recon benchmark --parity`: as many keys as asked compared with a fake Stripe, at the rate at which Stripe is asked.

    GROUP BY over the log alone ⇄ product: each key's sum from the log, one call, one row of its own records

The product runs in a process of its own by the real SDK, the fake in this one. Nobody waits for the rate: a clock goes
ahead by what would have been slept, and tells the passes their hour too. Everything else takes the time that it takes.
"""

import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context

from rich.console import Console
from sqlalchemy import event

from recon_pipeline.assets.parity_pass import Comparison
from recon_pipeline.core.parity.metering import Metering
from recon_pipeline.core.parity.windows import to_minute
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import Extent, parse_scope
from recon_pipeline.faces.benchmark.month_report import require_enough
from recon_pipeline.faces.benchmark.parity_report import ParityReport, Passes, bars_of, show
from recon_pipeline.faces.benchmark.product import FIRST_MONTH, LAST_MONTH, peak_memory_bytes
from recon_pipeline.faces.benchmark.report import Measurement
from recon_pipeline.faces.benchmark.scratch import execute_outside_transaction, fill, scratch_database
from recon_pipeline.faces.benchmark.statements import statement
from recon_pipeline.faces.demo.fake_stripe import KEY, METER, FakeStripe, fake_stripe
from recon_pipeline.parity_settings import DEFAULT_LAG_MINUTES
from recon_pipeline.providers.pace import Pace
from recon_pipeline.providers.stripe import StripeMeters, require_stripe
from recon_pipeline.settings import DEFAULT_SCOPE
from recon_pipeline.store.log.tables import describe_server
from recon_pipeline.store.parity import found
from recon_pipeline.store.parity.sending import Sending
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.postgres.statements import labelled

GROUP_BY, LOG_SIDE = "GROUP BY alone, work_mem 128MB", "the log's side of the comparison"
RECORDS, WHOLE = "the product's own records of it", "the whole comparison, without waiting"

_USAGE = parse_scope(DEFAULT_SCOPE)[0]
_BEGINS = BillingMonth(2026, 8).start + timedelta(minutes=7)
"""When each of the periods is over."""
_HALF_OF_THE_MONTHS = BillingMonth(2026, 3)
_HOUR_SECONDS = 3_600
_FORGET = "truncate recon.parity_key, recon.parity_difference, recon.parity_month"
_COUNTERS = labelled(
    "counters_to_send", "select gateway_customer_id, period_start, usage_count from billing_usage_counters"
)


@dataclass
class SkippingClock:
    """Real time, and what would have been slept.

    Attributes:
        skipped_seconds: How much that was.
    """

    skipped_seconds: float = 0.0
    _zero: float = field(default_factory=time.monotonic, init=False)

    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._zero + self.skipped_seconds

    def sleep(self, seconds: float) -> None:
        """Go ahead."""
        self.skipped_seconds += seconds

    def now(self) -> datetime:
        """The instant that the comparison takes for the present."""
        return _BEGINS + timedelta(seconds=self.seconds())


def measure_parity(
    url: str | None, *, keys: int, events: int, console: Console, seed: int = 1, rounds: int = 3
) -> ParityReport:
    """Measure the comparison with Stripe's meters beside a GROUP BY of the same log.

    Args:
        url: Of a server on which our role may create databases; None for an embedded one of its own.
        keys: That are compared.
        events: In the log.
        console: Shows what happens, and the report.
        seed: Of everything that is random.
        rounds: How often the log is summed by GROUP BY.

    Raises:
        ReconError: A size is impossible, Stripe's SDK is missing, or the server refused something. No table of the
            application's was touched.
    """
    require_stripe()
    require_enough(events, keys)
    with scratch_database(url) as scratch_url, fake_stripe(_BEGINS) as stripe:
        database = BillingDatabase(scratch_url)
        with console.status(f"Making up {events:,} events of {keys:,} keys …"):
            fill(database, events=events, counters=keys, seed=seed)
            _send(database, stripe)
        with console.status(f"{GROUP_BY} …"):
            alone = Measurement(GROUP_BY, tuple(_group_by(database) for _ in range(rounds)))
        work = _Work(scratch_url, stripe.url, _HALF_OF_THE_MONTHS)
        with console.status("Comparing half of the months …"):
            half = _in_process_of_its_own(work)
        execute_outside_transaction(database, _FORGET)
        with console.status("Comparing all months …"):
            passes = _in_process_of_its_own(replace(work, last=LAST_MONTH))
        _require_equal(database, passes, keys)
        with database.transaction() as connection:
            version = describe_server(connection).version_name.split()[0]
    measured = {LOG_SIDE: passes.log_seconds, RECORDS: passes.record_seconds, WHOLE: passes.seconds}
    report = ParityReport(
        version, seed, events, keys,
        (alone, *(Measurement(name, (seconds,)) for name, seconds in measured.items())),
        half, passes, tuple(bars_of(half, passes, events)),
    )  # fmt: skip
    show(console, report)
    return report


@dataclass(frozen=True)
class _Work:
    """What the process of the product is given."""

    url: str
    stripe_url: str
    last: BillingMonth

    def run(self) -> Passes:
        """Compare each hour until no key is due."""
        database, clock = BillingDatabase(self.url, keeps_connection=True), SkippingClock()
        statements = _StatementClock(database)
        meters = StripeMeters(KEY, self.stripe_url, Pace(now=clock.seconds, sleep=clock.sleep))
        sending = Sending(_USAGE, Metering(METER), Extent((_USAGE,), FIRST_MONTH, self.last))
        comparison = Comparison(database, sending, meters, timedelta(minutes=DEFAULT_LAG_MINUTES), clock.now)
        count = compared = 0
        asking, began, is_done = 0.0, time.perf_counter(), False
        while not is_done:
            clock.sleep(max(0.0, count * _HOUR_SECONDS - clock.seconds()))
            begun = clock.seconds()
            one = comparison.run()
            asking += clock.seconds() - begun
            count, compared, is_done = count + 1, compared + one.compared, one.is_done
        seconds = time.perf_counter() - began
        database.close()
        of_log, of_records = statements.seconds(reads_log=True), statements.seconds(reads_log=False)
        peak_mb = peak_memory_bytes() / 1e6
        return Passes(count, compared, meters.pace.calls, asking, seconds, of_log, of_records, peak_mb)


class _StatementClock:
    """How long statements take until their answer has come, those that read the log apart from the others."""

    def __init__(self, database: BillingDatabase) -> None:
        self._seconds = {True: 0.0, False: 0.0}
        self._since = 0.0
        event.listen(database.engine, "before_cursor_execute", self._begin)
        event.listen(database.engine, "after_cursor_execute", self._end)

    def seconds(self, *, reads_log: bool) -> float:
        """Of all of a kind."""
        return self._seconds[reads_log]

    def _begin(self, *_: object) -> None:
        self._since = time.perf_counter()

    def _end(self, _connection: object, _cursor: object, sent: str, *_: object) -> None:
        self._seconds["billing_usage_events" in sent] += time.perf_counter() - self._since


def _send(database: BillingDatabase, stripe: FakeStripe) -> None:
    """Let Stripe have what the log says, one event for each key."""
    with database.transaction() as connection:
        for number, row in enumerate(connection.execute(_COUNTERS)):
            at = to_minute(row.period_start.astimezone(UTC))
            stripe.now = at
            stripe.send(row.gateway_customer_id, row.usage_count, at, str(number))
    stripe.now = _BEGINS


def _group_by(database: BillingDatabase) -> float:
    with database.transaction() as connection:
        began = time.perf_counter()
        connection.execute(statement("group_by")).all()
        return time.perf_counter() - began


def _in_process_of_its_own(work: _Work) -> Passes:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(work.run).result()


def _require_equal(database: BillingDatabase, passes: Passes, keys: int) -> None:
    extent = Extent((_USAGE,), FIRST_MONTH, LAST_MONTH)
    with database.transaction() as connection:
        covered = found.coverage(connection, extent)
    if (passes.compared, covered.compared, covered.differing, covered.refused) != (keys, keys, 0, 0):
        raise AssertionError(f"{keys} keys are equal at Stripe, and the comparison says {passes} {covered}")
