"""The application at work in other threads, and waiting for a condition with a bound instead of sleeping."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from recon_pipeline_tests.reconciliation.billing import MAY, Billing

APPLICATION, PRODUCT = "application", "recon_pipeline"
_WAITING_FOR_LOCK = """
    select count(*) from pg_stat_activity
    where datname = current_database() and application_name = %s and wait_event_type = 'Lock'
"""


def wait_until(condition: Callable[[], bool], *, seconds: float = 20) -> None:
    """Return as soon as the condition holds.

    Raises:
        AssertionError: It did not hold in time.
    """
    give_up_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up_at:
            raise AssertionError(f"the condition did not come true within {seconds} s")
        time.sleep(0.005)


def wait_until_blocked(billing: Billing, who: str, *, seconds: float = 20) -> None:
    """Return as soon as a session of the application or of the product waits for a lock."""
    wait_until(lambda: billing.value(_WAITING_FOR_LOCK, who) > 0, seconds=seconds)


@contextmanager
def background() -> Iterator[Callable[..., Future[Any]]]:
    """Gives a function that runs another one in a thread; what it raises is raised here at the end."""
    futures: list[Future[Any]] = []
    with ThreadPoolExecutor(8) as threads:

        def start(act: Callable[..., object], *arguments: object) -> Future[Any]:
            futures.append(threads.submit(act, *arguments))
            return futures[-1]

        yield start
    for future in futures:
        future.result()


@contextmanager
def writers(billing: Billing, customers: Sequence[str], *, threads: int = 4) -> Iterator[Counter[str]]:
    """The application records usage of these customers at full speed until the block ends.

    Yields:
        What it added to each customer's counter in May; complete when the block has ended.
    """
    added: Counter[str] = Counter()
    guard, stop = threading.Lock(), threading.Event()

    def write(seed: int) -> None:
        choices, own = random.Random(seed), Counter[str]()  # noqa: S311 - not a secret
        with billing.session(autocommit=True, application_name=APPLICATION) as session:
            while not stop.is_set():
                customer, quantity = choices.choice(customers), choices.randint(1, 9)
                if session.record(customer, quantity, period=MAY):
                    own[customer] += quantity
        with guard:
            added.update(own)

    with background() as start:
        for seed in range(threads):
            start(write, seed)
        try:
            yield added
        finally:
            stop.set()
