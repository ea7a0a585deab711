"""Names of sources and files, for people and for records; loads nothing that reads files."""

from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from recon_pipeline.core.errors import one_line

STDIN = "-"


@dataclass(frozen=True)
class Unread:
    """A file that was found and is not read."""

    name: str
    reason: str


def shown_source(source: str) -> str:
    """A source's name without possible secrets: user, password, query (signatures) and fragment of a URL.

    Control characters and bytes that are no UTF-8 are escaped, so that it can be shown and stored.
    """
    if "://" in source:
        parts = urlsplit(source)
        source = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    whole = source.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return one_line(whole)
