"""How long the database was at work: statements and commits, without what Python does in between."""

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, event


class Stopwatch:
    """Adds up the time that an engine's connections wait for the server, in seconds."""

    def __init__(self, engine: Engine) -> None:
        self.seconds = 0.0
        self._began = 0.0
        event.listen(engine, "before_cursor_execute", self._start)
        event.listen(engine, "after_cursor_execute", self._stop)
        event.listen(engine, "connect", self._watch_commits)

    def _start(self, *_: Any) -> None:
        self._began = time.perf_counter()

    def _stop(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self._began

    def _watch_commits(self, connection: Any, _: Any) -> None:
        connection.commit = self._timed(connection.commit)

    def _timed(self, call: Callable[[], None]) -> Callable[[], None]:
        def timed() -> None:
            self._start()
            call()
            self._stop()

        return timed
