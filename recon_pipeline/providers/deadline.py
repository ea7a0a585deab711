"""A bound on the time of a call that may drip: timeouts of sockets are for each byte, and not for an answer."""

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def in_time(call: Callable[[], T], seconds: float) -> T:
    """Make a call in a thread of its own, which is left alone if it is too slow.

    Raises:
        APIConnectionError: It took longer.
    """
    import stripe  # noqa: PLC0415 - an extra, which nothing else needs

    results: list[T] = []
    errors: list[Exception] = []

    def make() -> None:
        try:
            results.append(call())
        except Exception as error:  # noqa: BLE001 - raised again by the caller
            errors.append(error)

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise stripe.APIConnectionError("too slow") from TimeoutError()
    return results[0]
