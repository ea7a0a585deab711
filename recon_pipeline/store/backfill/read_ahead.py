"""Reads ahead: the next piece of a source is parsed while Postgres inserts the one before."""

import sys
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

_SWITCH_SECONDS = 0.0005
"""The longest that the thread which talks to Postgres waits for the parsing one after each answer. Python's default is
ten times that: with some ten answers for each chunk, two such threads took a third longer."""

T = TypeVar("T")


def read_ahead(pieces: Iterable[T]) -> Generator[T]:
    """The same, each made in a thread of its own while the one before is worked on."""
    coming, nothing = iter(pieces), object()
    with _quick_switches(), ThreadPoolExecutor(1, "recon-read-ahead") as reader:
        following = reader.submit(next, coming, nothing)
        while (piece := following.result()) is not nothing:
            following = reader.submit(next, coming, nothing)
            yield piece  # pyright: ignore[reportReturnType]


@contextmanager
def _quick_switches() -> Generator[None]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)
