"""Which files a sum was counted from, and the refusal of files that change meanwhile.

Invariant: what is recorded of a file identified it before it was read, and still does after. So a sum can be derived
again from the same files, or it is seen that they are not the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from recon_pipeline.core.errors import NOTHING_CHANGED, ConfigurationError, ReconError
from recon_pipeline.sources.finding import SourceFile

NOTHING_COUNTED = f"Nothing was counted. {NOTHING_CHANGED}"


def uncountable(what: str, *, fix: str) -> ConfigurationError:
    """The error where settings name no lake that can be counted."""
    return ConfigurationError(what, changed=NOTHING_COUNTED, fix=fix)


@dataclass(frozen=True)
class FileRead:
    """A file as it was when it was read.

    Attributes:
        name: For people: without password and signature.
        size: In bytes, or None if the file system does not report it.
        version: What changes if the file does: on object storage its ETag, on a disk its time of change.
    """

    name: str
    size: int | None
    version: str


def files_read(files: Sequence[SourceFile]) -> tuple[FileRead, ...]:
    """What identifies each of the files now."""
    return tuple(
        FileRead(one.name, one.size, " ".join(str(part) for part in one.version() or () if part is not None))
        for one in files
    )


def require_one_layout(files: Sequence[SourceFile]) -> None:
    """Refuse files of which only some are in folders whose names give columns: an engine would leave out the others.

    Raises:
        ConfigurationError: They are.
    """
    found = {", ".join(name for name, _ in file.partitions) or "none" for file in files}
    if len(found) > 1:
        raise uncountable(
            f"The names of folders give different columns for different files of the lake: {'; '.join(sorted(found))}.",
            fix="Name one of its folders in RECON_LAKE, or leave files out by skip: in the mapping.",
        )


def require_unchanged(files: Sequence[SourceFile], before: Sequence[FileRead]) -> None:
    """Refuse files that are not what they were before they were read.

    Raises:
        ReconError: One of them changed, or is gone.
    """
    for file, was in zip(files, before, strict=True):
        try:
            (now,) = files_read([file])
        except FileNotFoundError as error:
            raise _changed(was.name, "was deleted") from error
        except Exception as error:
            # What a storage's library raises has no common base.
            raise _changed(was.name, f"could not be looked at again ({error}), so it may have changed") from error
        if now.version != was.version:
            raise _changed(was.name, "changed")


def _changed(name: str, how: str) -> ReconError:
    return ReconError(
        f"{name} {how} while it was read.",
        changed=NOTHING_COUNTED,
        fix="Wait until nobody writes the lake, then run this again.",
    )
