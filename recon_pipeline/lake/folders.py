"""A folder on a disk or an object store, and what fails there in words; fsspec opens both."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import fsspec

from recon_pipeline.core.errors import NOTHING_ARCHIVED, ConfigurationError, ReconError
from recon_pipeline.sources.names import shown_source

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "http", "https": "http"}


class ArchiveError(ReconError):
    """An archive is not there any more as it was written, or cannot be reached."""


class LostFileError(ArchiveError):
    """A file of an archive is missing, or was changed."""


@dataclass(frozen=True)
class Folder:
    """A folder of an archive; its URL holds no password."""

    url: str
    filesystem: Any
    path: str

    @classmethod
    def of(cls, url: str) -> "Folder":
        """The folder of a URL or path.

        Raises:
            ConfigurationError: It cannot be opened, or it holds a password, which would be recorded.
        """
        shown = shown_source(url)
        if "://" in url and (urlsplit(url).password is not None or urlsplit(url).query):
            raise ConfigurationError(
                f"The URL {shown} holds a password or a query, which would be recorded.",
                changed=NOTHING_ARCHIVED,
                fix="Remove it; pass it by environment variables, as the package that opens such URLs documents.",
            )
        with reaching(shown):
            filesystem, path = fsspec.core.url_to_fs(url)
            return cls(filesystem.unstrip_protocol(path) if "://" in url else path, filesystem, path)

    def below(self, *parts: str) -> "Folder":
        """A folder or file in it."""
        return Folder("/".join((self.url, *parts)), self.filesystem, "/".join((self.path, *parts)))

    @property
    def is_local(self) -> bool:
        """Whether its files can be read where they are."""
        return "file" in self.filesystem.protocol

    def make(self) -> None:
        """Make it, where folders exist by themselves; on an object store that would make buckets."""
        if not {"s3", "gs"}.intersection(self.filesystem.protocol):
            self.filesystem.makedirs(self.path, exist_ok=True)


@contextmanager
def reaching(url: str, *, is_written: bool = False) -> Generator[None]:
    """Report what fails inside: libraries that open URLs raise errors of many classes without a common base.

    Args:
        url: For people.
        is_written: What is there is being written, and not read back.
    """
    try:
        yield
    except ReconError:
        raise
    except ImportError as error:
        extra = _EXTRAS.get(url.partition("://")[0])
        package = f"'recon-pipeline[{extra}]'" if extra else "the package that it names"
        raise ConfigurationError(
            f"{url} cannot be opened: {error}.", changed=NOTHING_ARCHIVED, fix=f"Install it: uv pip install {package}."
        ) from error
    except Exception as error:
        if isinstance(error, FileNotFoundError) and not is_written:
            raise _missing(url) from error
        lines = str(error).strip().splitlines()
        raise ArchiveError(
            f"{url} cannot be {'written' if is_written else 'reached'}: {type(error).__name__}"
            f"{': ' + lines[0] if lines else ''}.",
            changed=NOTHING_ARCHIVED,
            fix="Check that the folder or bucket is there and has room, and that the account that runs this may write "
            "there; then run the command again."
            if is_written
            else "Check that the store answers and that the account that runs this may read and write there, "
            "then run the command again.",
        ) from error


def _missing(url: str) -> LostFileError:
    return LostFileError(
        f"{url} is missing.",
        changed=NOTHING_ARCHIVED,
        fix="Restore it from a copy of the archive; the events are nowhere else if they have left the log.",
    )
