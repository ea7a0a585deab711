"""Explains keys of archived months for a page, in a process of its own: reading an archive may take minutes.

Invariant: one process at a time, which ends after `READ_SECONDS` whatever it waits for, with its memory and session. A
page that cannot wait for that shows what the log says, and why.
"""

from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import Lock

from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.explain import explain
from recon_pipeline.faces.explained import Explained
from recon_pipeline.settings import Settings

READ_SECONDS = 20


class ArchiveReader:
    """Reads archives for pages."""

    def __init__(self, settings: Settings) -> None:
        """Take the settings of every explanation."""
        self._settings = settings
        self._is_reading = Lock()

    def beside_archives(self, by_log: Explained, month: BillingMonth | None) -> Explained:
        """What the log and the archives say of keys, where the log alone has not all that was sealed.

        Args:
            by_log: What the log says.
            month: That was asked for.
        """
        if not any(one.is_sealed_elsewhere for one in by_log.explanations):
            return by_log
        if not self._is_reading.acquire(blocking=False):
            return _of_log(by_log, "another page reads an archive at this moment: reload this page.")
        try:
            found = _explained_elsewhere(self._settings, by_log.customer, month)
        finally:
            self._is_reading.release()
        return _of_log(by_log, found) if isinstance(found, str) else found


def _explained_elsewhere(settings: Settings, customer: str, month: BillingMonth | None) -> Explained | str:
    """What a process of its own says, or why it says nothing."""
    spawning = get_context("spawn")
    receiving, sending = spawning.Pipe(duplex=False)
    process = spawning.Process(target=_explain, args=(sending, settings, customer, month), daemon=True)
    process.start()
    sending.close()
    try:
        if receiving.poll(READ_SECONDS):
            return receiving.recv()
        return f"that takes more than {READ_SECONDS} seconds, and recon explain has no such limit."
    except EOFError:
        return "the process that read it was ended: look at the memory of this machine, or run recon explain."
    finally:
        process.kill()
        process.join()
        receiving.close()


def _explain(sending: Connection, settings: Settings, customer: str, month: BillingMonth | None) -> None:
    try:
        sending.send(explain(settings, customer, month))
    except ReconError as error:
        sending.send(error.what)


def _of_log(by_log: Explained, because: str) -> Explained:
    explanations = tuple(
        replace(one, archive_error=because) if one.is_sealed_elsewhere else one for one in by_log.explanations
    )
    return replace(by_log, explanations=explanations)
