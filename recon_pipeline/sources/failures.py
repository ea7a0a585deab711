"""Errors of file systems, networks, decompressors and Arrow, in the three parts that a person needs.

Such libraries raise errors of many classes without a common base: every error that is not ours is about the source.
"""

import re
from collections.abc import Callable, Generator
from contextlib import contextmanager

from recon_pipeline.core.backfill.mapping import NOTHING_INSERTED
from recon_pipeline.core.errors import ConfigurationError, ReconError

WHAT_IS_DONE = "Rows that were read before stay inserted; nothing is inserted twice when this is run again."
_EXTRAS = (("http", "http"), ("s3", "s3"), ("gs", "gcs"), ("gcs", "gcs"))


@contextmanager
def reading(name: str, place: Callable[[], str] = lambda: "") -> Generator[None]:
    """Report what fails inside.

    Args:
        name: The source, as it may be shown.
        place: How far it was read, as ` after line 7`, or ''.
    """
    try:
        yield
    except ReconError:
        raise
    except FileNotFoundError as error:
        # fsspec says so for every response of a web server that is no file; the cause is what the server said.
        if error.__cause__ is not None and getattr(error.__cause__, "status", None) not in (404, 410):
            raise _unreadable(name, place(), error.__cause__) from error
        raise ConfigurationError(
            f"{name} does not exist.",
            changed=NOTHING_INSERTED,
            fix="Check the path on the machine where this runs.",
        ) from error
    except PermissionError as error:
        raise ReconError(
            f"{name} may not be read{place()}: {_first_line(error)}",
            changed=NOTHING_INSERTED,
            fix="Let the account that runs this read it.",
        ) from error
    except ImportError as error:
        raise ConfigurationError(
            f"{name} cannot be opened: {_first_line(error)}",
            changed=NOTHING_INSERTED,
            fix=f"Install what it needs: uv pip install {_package(name)}.",
        ) from error
    except MemoryError as error:
        raise ReconError(
            f"{name} needs more memory than there is{place()}.",
            changed=WHAT_IS_DONE,
            fix="Export it with fewer rows in each row group, or as CSV.",
        ) from error
    except Exception as error:
        raise _unreadable(name, place(), error) from error


def _unreadable(name: str, place: str, error: BaseException) -> ReconError:
    # An error of the web repeats the URL, with a signature in its query.
    said = re.sub(r"[a-z0-9+]+://[^\s'\"]+", name, _first_line(error))
    return ReconError(
        f"{name} cannot be read, or is truncated{place}: {said}", changed=WHAT_IS_DONE, fix=_advice(error)
    )


def _package(name: str) -> str:
    extra = next((extra for protocol, extra in _EXTRAS if name.startswith(protocol)), None)
    return f"'recon-pipeline[{extra}]'" if extra else "the package that it names"


def _advice(error: BaseException) -> str:
    status = getattr(error, "status", None)
    kind = type(error).__name__
    if status in (401, 403) or "Credentials" in kind:
        return (
            "Sign in, or let the account that runs this read it: credentials come from its environment "
            "(for S3 AWS_PROFILE or AWS_ACCESS_KEY_ID, for GCS GOOGLE_APPLICATION_CREDENTIALS)."
        )
    if kind == "ArrowNotImplementedError":
        return "Export it again without the column of that type, with another type for it, or as CSV or NDJSON."
    if status is not None or "Redirect" in kind:
        return "Open the URL as the account that runs this, get the file, and give its path."
    return "Get the whole file and run this again."


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    kind = type(error).__name__
    is_short = not lines or len(lines[0]) < 12 or getattr(error, "status", None) is not None
    return f"{kind}: {lines[0]}" if lines and is_short else lines[0] if lines else kind
