"""What an archive says of itself: the seal that it is of, and each of its files with rows, bytes and SHA-256."""

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ArchivedFile:
    """A file of an archive, as its manifest says it."""

    name: str
    row_count: int
    byte_count: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What was archived.

    Attributes:
        month: `YYYY-MM`.
        gateway_name: Of the metered usage.
        usage_type: Of the metered usage.
        seal_id: The seal.
        seal_checksum: Its checksum.
        seen: The snapshot at which the events were read.
        quantity_scale: The digits after the point that quantities have.
        row_count: Of all files.
        byte_count: Of all files.
        files: Each of them.
    """

    month: str
    gateway_name: str
    usage_type: str
    seal_id: int
    seal_checksum: str
    seen: str
    quantity_scale: int
    row_count: int
    byte_count: int
    files: tuple[ArchivedFile, ...]

    def as_bytes(self) -> bytes:
        """As it is written."""
        return (json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n").encode()

    @classmethod
    def read(cls, written: bytes) -> "Manifest":
        """As it was written."""
        found: dict[str, Any] = json.loads(written)
        files = tuple(ArchivedFile(**one) for one in found.pop("files"))
        return cls(**found, files=files)
