"""A bound for how long Spark may be without an executor: by itself it waits for ever, and says so only in its log."""

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

from recon_pipeline.core.errors import ReconError
from recon_pipeline.lake.engine_settings import EngineSettings
from recon_pipeline.lake.files import NOTHING_COUNTED

PATIENCE_SECONDS = 300.0
"""Longer than it takes to start executors, also in containers."""

_LOOK_SECONDS = 0.5


@contextmanager
def executors_awaited(session: Any, settings: EngineSettings) -> Generator[None]:
    """Cancel what runs inside once no executor has been there for `PATIENCE_SECONDS`.

    Raises:
        ReconError: It was cancelled.
    """
    if settings.spark_remote or session.sparkContext.master.startswith("local"):
        yield  # a server of Spark Connect has executors of its own; a local Spark is one
        return
    from py4j.protocol import Py4JError  # noqa: PLC0415 - an extra

    context, tag = session.sparkContext, f"recon-{uuid4()}"
    ended, gave_up = threading.Event(), threading.Event()

    def look() -> None:
        last_seen = time.monotonic()
        with suppress(Py4JError):  # where Java has ended, what runs inside fails by itself
            while not ended.wait(_LOOK_SECONDS):
                if context._jsc.sc().getExecutorMemoryStatus().size() > 1:  # the driver is one of them
                    last_seen = time.monotonic()
                elif time.monotonic() - last_seen > PATIENCE_SECONDS:
                    gave_up.set()
                    context.cancelJobsWithTag(tag)  # again and again: between two jobs there is none to cancel

    looking = threading.Thread(target=look, name="executors-awaited", daemon=True)
    context.addJobTag(tag)
    looking.start()
    try:
        yield
    except Exception as error:
        if not gave_up.is_set():
            raise
        raise ReconError(
            f"Spark at {settings.spark_place} had no executor for {PATIENCE_SECONDS:.0f} seconds: its workers are gone "
            "or busy, cannot reach this machine, or have less memory than RECON_LAKE_MEMORY_MB "
            f"({settings.memory_mb:,} MB).",
            changed=NOTHING_COUNTED,
            fix="Look at the page of Spark's master; start workers, let SPARK_LOCAL_IP name an address that they "
            "reach, or set RECON_LAKE_MEMORY_MB lower; then run this again.",
        ) from error
    finally:
        ended.set()
        looking.join()
        context.removeJobTag(tag)
