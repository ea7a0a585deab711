"""The errors that people read: what failed and on what, what was and was not changed, and what to do next."""

import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

NOTHING_CHANGED = "No counter was changed."
REPAIRS_STAY = "Repairs that were committed before stay, each with its row in recon.counter_repair."


class ReconError(Exception):
    """A failure, reported in three parts.

    They contain names of files, columns and customers: characters that would control a terminal, or cannot be stored,
    are escaped.

    Args:
        what: What failed, and on what. Never contains a secret.
        fix: What to do next, in the imperative.
        changed: What was and was not changed.
    """

    def __init__(self, what: str, *, fix: str, changed: str = NOTHING_CHANGED) -> None:
        self.what = printable(what)
        super().__init__(self.what)
        self.fix = printable(fix)
        self.changed = printable(changed)

    def __reduce__(self) -> tuple[Any, ...]:
        """As it is sent from one process to another: an exception is made again from `args` alone otherwise."""
        return _made_again, (type(self), self.what), self.__dict__

    def __str__(self) -> str:
        """The three parts, one line each."""
        return f"{self.what}\n{self.changed}\nWhat to do: {self.fix}"


def _made_again(of: type[ReconError], what: str) -> ReconError:
    return of.__new__(of, what)


def printable(text: str) -> str:
    """A text with its control characters, and bytes that were no text, as escapes; lines stay."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode("ascii") for one in text
    )


def one_line(text: str) -> str:
    """A value from outside, such as a customer id, as a part of a sentence: it begins no line of its own."""
    return printable(text).replace("\n", "\\n")


_ATTEMPT = re.compile(
    r"^- host: '?(?P<host>.*?)'?, port: .*?, hostaddr: (?:None|'[^']*'): (?:connection \w+(?: bad)?: )?(?P<said>.*)$"
    r"|^(?P<libpq>connection to server .*)$",
    re.MULTILINE,
)


def driver_reason(said: str) -> str:
    """A driver's message: why each host that it tried failed, else its first line."""
    reasons = [
        one["libpq"] or (one["said"] if one["host"] in one["said"] else f"{one['host']}: {one['said']}")
        for one in _ATTEMPT.finditer(said)
    ]
    return "; ".join(dict.fromkeys(reasons)) or said.strip().partition("\n")[0].rstrip()


class ConfigurationError(ReconError):
    """A given variable, option or value is wrong; its name is in the message."""


class DatabaseUnreachableError(ReconError):
    """The billing database did not answer, or the connection to it was lost."""


class DatabaseRefusedError(DatabaseUnreachableError):
    """The server of the billing database answered, and did not let us in: the role, the database, a limit, or SSL."""


class OrchestratorUnreachableError(ReconError):
    """Dagster's storage did not answer, or the connection to it was lost."""


class UntrustworthyLogError(ReconError):
    """The event log may be incomplete or wrong, so nothing may be repaired from it."""


class SchemaVersionError(ReconError):
    """Schema recon has another version than this code needs.

    Args:
        what: As of every error.
        fix: As of every error.
        is_newer: A newer release prepared it; otherwise an older one did, or none.
    """

    def __init__(self, what: str, *, fix: str, is_newer: bool = False) -> None:
        super().__init__(what, fix=fix)
        self.is_newer = is_newer


class PutOffError(ReconError):
    """Another session has locked a table that a run must read, for example a migration; the next run tries again."""


class StatementFailedError(ReconError):
    """Postgres refused a statement: a privilege, a missing object, a limit."""


class BlockedError(ReconError):
    """A guard blocks a repair that is larger than the budgets allow and that nobody has approved."""


NOTHING_ARCHIVED = f"No event was deleted, no archive was recorded. {NOTHING_CHANGED}"


def archives_need(error: ImportError) -> ConfigurationError:
    """The error where the packages are not there that write and read archives."""
    return ConfigurationError(
        f"Archives need packages that are not installed: {error}.",
        changed=NOTHING_ARCHIVED,
        fix="Install them where this runs: uv pip install 'recon-pipeline[lake]'.",
    )


@contextmanager
def noting(place: str) -> Generator[None]:
    """Add to an unexpected error where it was raised; an error for people says that itself."""
    try:
        yield
    except ReconError:
        raise
    except BaseException as error:
        if not getattr(error, "__notes__", ()):
            error.add_note(place)
        raise
