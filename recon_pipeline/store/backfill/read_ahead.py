"""Reads ahead: the next piece of a source is parsed while Postgres inserts the one before."""

import gc
import sys
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

_SWITCH_SECONDS = 0.0005
"""The longest that the thread which talks to Postgres waits for the parsing one after each answer. Python's default is
ten times that: with some ten answers for each chunk, two such threads took a third longer."""

_OBJECTS_BETWEEN_COLLECTIONS = 100_000
"""Python looks for garbage in cycles after so many new objects: some for each row, and hardly any in a cycle. With its
usual 700, and all that the process held before among what it looks at, this took a quarter of the time of reading."""

T = TypeVar("T")


def read_ahead(pieces: Iterable[T]) -> Generator[T]:
    """The same, each made in a thread of its own while the one before is worked on."""
    coming, nothing = iter(pieces), object()
    with _quick_switches(), _rare_collections(), ThreadPoolExecutor(1, "recon-read-ahead") as reader:
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


@contextmanager
def _rare_collections() -> Generator[None]:
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()
