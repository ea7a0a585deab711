"""The file systems of sources: this machine's, web servers, and what fsspec opens with an additional package."""

import os
from typing import Any
from urllib.parse import urlsplit

import fsspec

from recon_pipeline.core.backfill.mapping import NOTHING_INSERTED
from recon_pipeline.core.errors import ConfigurationError


def filesystem_of(source: str, shown: str) -> tuple[Any, str]:
    """The file system of a path, glob, folder or URL, and the path in it.

    Args:
        source: As a person gave it.
        shown: Its name in errors.

    Raises:
        ConfigurationError: Nothing opens such URLs.
    """
    if "://" not in source:
        # Not by fsspec, for which :: in a name chains URLs.
        return fsspec.filesystem("file"), os.path.abspath(os.path.expanduser(source))
    protocol = fsspec.core.split_protocol(source)[0]
    if protocol not in fsspec.available_protocols():
        raise ConfigurationError(
            f"{shown} begins with {protocol}://, which cannot be opened.",
            changed=NOTHING_INSERTED,
            fix="Give a path, a URL that fsspec opens, table:NAME, or query:SELECT ...",
        )
    options = _patient_client() if protocol in ("http", "https") else {}
    return fsspec.core.url_to_fs(source, **options)


def refuse_password(source: str, shown: str) -> None:
    """Refuse a URL with a password.

    Raises:
        ConfigurationError: It has one.
    """
    if "://" in source and urlsplit(source).password is not None:
        raise ConfigurationError(
            f"The URL {shown} contains a password, which would be kept in the history of runs.",
            changed=NOTHING_INSERTED,
            fix="Remove it; pass it by environment variables, as the package that opens such URLs documents.",
        )


def is_local(filesystem: Any) -> bool:
    """Whether it is this machine's."""
    return "file" in _protocols(filesystem)


def is_a_web(filesystem: Any) -> bool:
    """Whether web servers answer with its files."""
    return "http" in _protocols(filesystem)


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = getattr(filesystem, "protocol", ())
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def _patient_client() -> dict[str, Any]:
    """Options of a web client that waits as long as the server sends: rows are inserted while their file is read.

    Its own limit, five minutes for a whole file, would end each larger backfill in the middle.
    """
    import aiohttp  # noqa: PLC0415 - of the extra [http]

    return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=300)}}
